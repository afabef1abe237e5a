"""The cells of a scale's tables as configs, with the science by which records are matched to them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations import spec
from ablations.spec import Ablation, Cell
from pipeline.config.identity import science
from pipeline.config.run import RunConfig
from pipeline.config.typed import flattened
from tnt.config import PyramidConfig, TNTConfig

# They follow from settings of another section, so they are no difference of their own.
FOLLOWING = ("model.image_size", "model.classes", "model.drop_path", "data.augmentation.image_size")
# Not compared: a cell has many seeds, and the run that it starts from is compared by itself.
APART = ("seed", "recipe.init")


@dataclass(frozen=True)
class Science:
    """The settings that decide a run's numbers, without its seed and the run that its weights come from."""

    settings: frozenset[tuple[str, Any]]  # (a.b.c, value)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Science":
        return cls(
            frozenset(
                (name, tuple(value) if isinstance(value, list) else value)
                for name, value in flattened(values)
                if name not in APART
            )
        )

    def changes(self, other: "Science") -> dict[str, Any]:
        """The settings of `other` that differ from these."""
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
class CellConfig:
    """A cell with its config at one scale."""

    ablation: str
    cell: Cell
    config: RunConfig
    science: Science
    origin: Science | None  # of the run that it starts from

    @property
    def network(self) -> TNTConfig | PyramidConfig | None:
        """None for a network of timm's."""
        network = self.config.model.network
        return network if isinstance(network, TNTConfig | PyramidConfig) else None


CellConfigs = Mapping[str, tuple[Ablation, list[CellConfig]]]


def cells_of(scale: str) -> CellConfigs:
    """The cells by ablation, in the tables' order; one that sets a scale itself has cells only there."""
    found = {}
    for name, whole in sorted(spec.load(spec.ALL).items(), key=_place):
        ablation = whole.at(scale)
        if own_scale(ablation) in ("", scale) and ablation.cells:
            overrides = scale_overrides(ablation, scale)
            found[name] = ablation, cell_configs(name, ablation, overrides)
    return found


def cell_configs(name: str, ablation: Ablation, overrides: Sequence[str]) -> list[CellConfig]:
    return [_cell_config(name, ablation, cell, overrides) for cell in ablation.cells]


def own_scale(ablation: Ablation) -> str:
    return next((text.partition("=")[2] for text in ablation.base if text.startswith("scale=")), "")


def scale_overrides(ablation: Ablation, scale: str) -> list[str]:
    """The arguments of a command line that give the ablation at a scale."""
    return [] if own_scale(ablation) or scale == "paper" else [f"scale={scale}"]


def _cell_config(name: str, ablation: Ablation, cell: Cell, overrides: Sequence[str]) -> CellConfig:
    config = spec.composed(ablation, cell, overrides)
    start = spec.origin(ablation, cell, overrides)
    origin = None if start is None else Science.of(science(start))
    return CellConfig(name, cell, config, Science.of(science(config)), origin)


def _place(item: tuple[str, Ablation]) -> tuple[str, str]:
    return item[1].table or "~", item[0]
