"""What the tables of a scale ask for: each cell's science, by which its records are known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablations import spec
from ablations.spec import Ablation, Cell
from pipeline.config.identity import science
from pipeline.config.run import RunConfig
from tnt.config import TNTConfig

# Said once in another section, and no difference of their own.
FOLLOWING = ("model.image_size", "model.classes", "model.drop_path", "data.augmentation.image_size")
# Left out of a science that is compared: a cell has many seeds, and its start is compared as a run.
APART = ("seed", "recipe.init")


@dataclass(frozen=True)
class Science:
    """What decides a run's numbers, but for its seed and the run that its weights come from."""

    settings: frozenset[tuple[str, Any]]  # (a.b.c, value)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Science":
        return cls(
            frozenset(
                (name, tuple(value) if isinstance(value, list) else value)
                for name, value in spec.flattened(values)
                if name not in APART
            )
        )

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.settings}

    def changes(self, other: "Science") -> dict[str, Any]:
        """The settings of `other` that are not as here."""
        if self.settings == other.settings:
            return {}
        theirs = dict(other.settings)
        names = {name for name, _ in self.settings ^ other.settings}
        return {name: theirs.get(name) for name in sorted(names.difference(FOLLOWING))}


def overrides_of(change: Mapping[str, Any]) -> list[str]:
    """Changed settings as a command line takes them."""
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in change.items()
    ]


@dataclass(frozen=True)
class Asked:
    """A cell as a config of the scale."""

    ablation: str
    cell: Cell
    config: RunConfig
    science: Science
    origin: Science | None  # of the run that it starts from

    @property
    def network(self) -> TNTConfig | None:
        """None for a network of timm's."""
        network = self.config.model.network
        return network if isinstance(network, TNTConfig) else None


Wanted = Mapping[str, tuple[Ablation, list[Asked]]]


def asked(scale: str) -> Wanted:
    """By ablation, in the tables' order; an ablation that sets a scale itself belongs to that one alone."""
    found = {}
    for name, ablation in sorted(spec.load(spec.ALL).items(), key=_place):
        if own_scale(ablation) in ("", scale):
            overrides = scale_overrides(ablation, scale)
            found[name] = (ablation, [_asked(name, ablation, cell, overrides) for cell in ablation.cells])
    return found


def own_scale(ablation: Ablation) -> str:
    return next((text.partition("=")[2] for text in ablation.base if text.startswith("scale=")), "")


def scale_overrides(ablation: Ablation, scale: str) -> list[str]:
    """What a command line says to get the ablation at a scale."""
    return [] if own_scale(ablation) or scale == "paper" else [f"scale={scale}"]


def _asked(name: str, ablation: Ablation, cell: Cell, overrides: list[str]) -> Asked:
    config = spec.composed(ablation, cell, overrides)
    start = spec.origin(ablation, cell, overrides)
    origin = None if start is None else Science.of(science(start))
    return Asked(name, cell, config, Science.of(science(config)), origin)


def _place(item: tuple[str, Ablation]) -> tuple[str, str]:
    return item[1].table or "~", item[0]
