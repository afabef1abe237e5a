"""What the tables of a scale ask for: each cell's science, by which its records are known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablations import spec
from ablations.spec import Ablation, Cell
from pipeline.config import RunConfig
from pipeline.identity import science

# Said once in another section, and no difference of their own.
FOLLOWING = ("model.image_size", "model.classes", "model.drop_path", "data.augmentation.image_size")


@dataclass(frozen=True)
class Science:
    """What decides a run's numbers, but for its seed and the run that its weights come from."""

    flat: Mapping[str, Any]
    key: str

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Science":
        recipe = {name: value for name, value in values["recipe"].items() if name != "init"}
        rest = {name: value for name, value in values.items() if name not in ("seed", "recipe")}
        rest["recipe"] = recipe
        return cls(dict(spec.flattened(rest)), json.dumps(rest, sort_keys=True))


@dataclass(frozen=True)
class Asked:
    """A cell as a config of the scale."""

    ablation: str
    cell: Cell
    config: RunConfig
    science: Science
    origin: Science | None  # of the run that it starts from


def asked(scale: str) -> dict[str, tuple[Ablation, list[Asked]]]:
    """By ablation, in the tables' order; an ablation that sets a scale itself belongs to that one alone."""
    found = {}
    for name, ablation in sorted(spec.load(spec.ALL).items(), key=_place):
        own = own_scale(ablation)
        if own and own != scale:
            continue
        overrides = [] if own or scale == "paper" else [f"scale={scale}"]
        found[name] = (ablation, [_asked(name, ablation, cell, overrides) for cell in ablation.cells])
    return found


def own_scale(ablation: Ablation) -> str:
    return next((text.partition("=")[2] for text in ablation.base if text.startswith("scale=")), "")


def differences(one: Science, other: Science) -> dict[str, Any]:
    """The settings of `other` that are not as in `one`."""
    names = spec.differing(one.flat, other.flat)
    return {name: other.flat.get(name) for name in names if name not in FOLLOWING}


def _asked(name: str, ablation: Ablation, cell: Cell, overrides: list[str]) -> Asked:
    config = spec.composed(ablation, cell, overrides)
    start = spec.origin(ablation, cell, overrides)
    origin = None if start is None else Science.of(science(start))
    return Asked(name, cell, config, Science.of(science(config)), origin)


def _place(item: tuple[str, Ablation]) -> tuple[str, str]:
    return item[1].table or "~", item[0]
