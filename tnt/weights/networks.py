"""What differs between TNT and PyramidTNT when weights are read: which network tensors fit, and its names."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tnt.config import NETWORKS, PYRAMIDS, VARIANTS, PyramidConfig, TNTConfig
from tnt.embed import resize_patch_positions
from tnt.model import TNT
from tnt.pyramid.embed import resize_relative_positions
from tnt.pyramid.model import PyramidTNT
from tnt.weights.formats import FORMATS, Format, check_rank, some
from tnt.weights.pyramid import PYRAMID_FORMATS
from tnt.weights.tensors import State

Config = TNTConfig | PyramidConfig
Network = TNT | PyramidTNT
POSITIONS = ("patch_position", "word_position")
# Fields that must agree; image size may differ, heads are compared where they are known.
ARCHITECTURE = ("form", "depth", "patch_dim", "word_dim", "mlp_ratio", "channels", "se")
OF_PYRAMIDS = ("depths", "patch_dim", "word_dim", "outer_heads", "mlp_ratio", "channels")
# Of the tensors whose shapes tell the network; those of all others follow from it.
RANKS = {
    "class_token": 3,
    "stem.conv.weight": 4,
    "to_patch.proj.weight": 2,
    "blocks.0.outer.mlp.fc1.weight": 2,
    "patch_position": 3,
    "word_position": 3,
    "stem.shared.0.weight": 4,
    "stages.0.blocks.0.outer.mlp.fc1.weight": 2,
    **{f"stages.{stage}.relative_position": 4 for stage in range(4)},
}


def network(config: Config) -> Network:
    return PyramidTNT(config) if isinstance(config, PyramidConfig) else TNT(config)


def formats_of(config: Config) -> dict[str, Format]:
    return PYRAMID_FORMATS if isinstance(config, PyramidConfig) else FORMATS


def recognise(foreign: State) -> Format:
    """The format whose mark is there; the published ones cannot be mistaken for each other by it."""
    for format in (*FORMATS.values(), *PYRAMID_FORMATS.values()):
        if format.mark in foreign:
            return format
    raise ValueError(
        f"not the weights of a TNT in any format known here ({', '.join(FORMATS)}): "
        f"its tensors are {some(sorted(foreign)) if foreign else 'none'}"
    )


def name_of(config: Config) -> str:
    """The published variant that a config is, with what differs from it."""
    fields = [field.name for field in dataclasses.fields(config) if field.name != "drop_path"]

    def differences(variant: Config) -> dict[str, Any]:
        return {
            name: getattr(config, name) for name in fields if getattr(config, name) != getattr(variant, name)
        }

    def distance(name: str) -> tuple[bool, bool, int]:
        variant = NETWORKS[name]
        return variant.patch_dim != config.patch_dim, variant.form != config.form, len(differences(variant))

    name = min(PYRAMIDS if isinstance(config, PyramidConfig) else VARIANTS, key=distance)
    changes = ", ".join(f"{field}={value}" for field, value in differences(NETWORKS[name]).items())
    return f"{name} ({changes})" if changes else name


def config_of(state: State, recorded: Config | None) -> tuple[Config, bool]:
    """The network that tensors fit, from their shapes; heads and edges in pixels from what was recorded.

    The shapes do not tell the number of inner heads: whether it is known comes too.
    """
    for name, rank in RANKS.items():
        check_rank(state, name, rank)
    try:
        if "stem.shared.0.weight" in state:
            return _pyramid(state, recorded if isinstance(recorded, PyramidConfig) else None)
        return _tnt(state, recorded if isinstance(recorded, TNTConfig) else None)
    except KeyError as missing:
        raise ValueError(f"incomplete weights: no {missing.args[0]}") from None


def _tnt(state: State, recorded: TNTConfig | None) -> tuple[TNTConfig, bool]:
    d = state["class_token"].shape[-1]
    c, channels = state["stem.conv.weight"].shape[:2]
    words = state["to_patch.proj.weight"].shape[1] // c
    ratio = state["blocks.0.outer.mlp.fc1.weight"].shape[0] // d
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    gates = tuple(place for place in ("inner", "outer") if f"blocks.0.{place}.gate.fc1.weight" in state)
    form = "official" if "blocks.0.to_patch.norm_patch.weight" in state else "legacy"
    known = recorded or next((v for v in VARIANTS.values() if (v.patch_dim, v.c) == (d, c)), None)
    patch_size = recorded.patch_size if recorded else 16
    patches = state["patch_position"].shape[1] - 1 if "patch_position" in state else 0
    return TNTConfig(
        form=form,
        image_size=round(patches**0.5) * patch_size if patches else (recorded or TNTConfig()).image_size,
        patch_size=patch_size,
        word_edge=max(1, patch_size // max(1, round(words**0.5))),
        depth=depth,
        patch_dim=d,
        word_dim=c,
        outer_heads=known.outer_heads if known else max(1, d // 64),
        inner_heads=known.inner_heads if known else (4 if c % 4 == 0 else 2 if c % 2 == 0 else 1),
        mlp_ratio=ratio,
        patch_position="patch_position" in state,
        word_position="word_position" in state,
        se={(): "none", ("inner",): "inner", ("outer",): "outer", ("inner", "outer"): "both"}[gates],
        channels=channels,
        classes=state["head.weight"].shape[0] if "head.weight" in state else 0,
    ), known is not None


def _pyramid(state: State, recorded: PyramidConfig | None) -> tuple[PyramidConfig, bool]:
    n, d = state["patch_position"].shape[1:]
    c, channels = state["word_position"].shape[-1], state["stem.shared.0.weight"].shape[1]
    blocks = {
        tuple(name.split(".")[1:4:2]) for name in state if name.startswith("stages.") and ".blocks." in name
    }
    known = recorded or next((v for v in PYRAMIDS.values() if (v.patch_dim, v.word_dim) == (d, c)), None)
    return PyramidConfig(
        image_size=math.isqrt(n) * PyramidConfig.patch_size,
        depths=tuple(sum(stage == str(number) for stage, _ in blocks) for number in range(4)),
        patch_dim=d,
        word_dim=c,
        outer_heads=state["stages.0.relative_position"].shape[1],
        inner_heads=known.inner_heads if known else 2 if c % 2 == 0 else 1,
        mlp_ratio=state["stages.0.blocks.0.outer.mlp.fc1.weight"].shape[0] // d,
        channels=channels,
        classes=state["head.weight"].shape[0] if "head.weight" in state else 0,
    ), known is not None


def fitted(state: State, config: Config) -> State:
    """With positions for the image size of a network, and without those that it has not."""
    state = dict(state)
    if isinstance(config, PyramidConfig):
        for number, stage in enumerate(config.stages):
            name, grid = f"stages.{number}.relative_position", (stage.edge, stage.edge)
            trained = math.isqrt(state[name].shape[2]), math.isqrt(state[name].shape[3])
            state[name] = resize_relative_positions(state[name], trained, grid, stage.pooling)
    for name in POSITIONS:
        if not getattr(config, name, True):
            state.pop(name, None)
    if "patch_position" in state:
        edge = config.image_size // config.patch_size
        state["patch_position"] = resize_patch_positions(state["patch_position"], (edge, edge))
    return state


def differing_fields(model: Config, held: Config, state: State, recorded: bool, new_head: bool) -> list[str]:
    """In what the network that is held in a file is another than the one to be filled."""
    if isinstance(held, PyramidConfig) or isinstance(model, PyramidConfig):
        fields = ["form"] if held.form != model.form else [*OF_PYRAMIDS, *["inner_heads"] * recorded]
    else:
        fields = list(ARCHITECTURE) + ([] if model.words == held.words else ["word_edge"])
        fields += ["patch_size", "word_edge", "outer_heads", "inner_heads"] if recorded else []
        fields += [name for name in POSITIONS if not _switched_off(state, name, getattr(model, name))]
    fields += [] if new_head else ["classes"]
    return list(dict.fromkeys(name for name in fields if getattr(model, name) != getattr(held, name)))


def _switched_off(state: State, name: str, wanted: bool) -> bool:
    """Formats without the switch hold zeros where a position is off, which is the same network."""
    return not wanted and name in state and not state[name].any()
