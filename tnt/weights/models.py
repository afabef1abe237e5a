"""Weights in every form in which TNT was published: recognised, checked, translated.

    python -m tnt.weights tnt_s.pth.tar tnt_s.safetensors --to timm

Reading never runs code that a file brings: pickles are opened with `weights_only=True`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tnt.config import VARIANTS, TNTConfig, from_fields, get_config
from tnt.embed import resize_patch_positions
from tnt.model import TNT
from tnt.untrusted.reading import json_of
from tnt.untrusted.showing import shown
from tnt.weights.formats import FORMATS, check_rank, recognise
from tnt.weights.named import WORDS, located, published
from tnt.weights.tensors import State, read_tensors, write_tensors

WRITABLE = ("tnt", "timm", "official")
# The fields that must agree; image size may differ, heads are compared where they are known.
ARCHITECTURE = ("form", "depth", "patch_dim", "word_dim", "mlp_ratio", "channels", "se")
POSITIONS = ("patch_position", "word_position")
# Of the tensors whose shapes tell the network; those of all others follow from it.
RANKS = {
    "class_token": 3,
    "stem.conv.weight": 4,
    "to_patch.proj.weight": 2,
    "blocks.0.outer.mlp.fc1.weight": 2,
    "patch_position": 3,
}


@dataclass(frozen=True)
class Weights:
    """What a file holds: tensors under our names, and the network that they fit.

    The shapes of tensors do not tell the number of heads. It is known where our own format recorded it, or
    where the widths are a published variant's; else the paper's rule is taken (outer width 64, 4 inner heads)
    and `heads_known` is false. `recorded`: the file holds its config.
    """

    path: Path
    format: str
    state: State
    config: TNTConfig
    heads_known: bool
    recorded: bool


def read(path: str | Path, *, ema: bool = True) -> Weights:
    """The weights in a file; a training checkpoint's moving average where it has one, unless `ema=False`.

    Of a folder, its `model.safetensors` is read; `timm:NAME` and `demo` are names of files.
    """
    path = located(path)
    if path.is_dir():
        path = path / "model.safetensors"
    foreign, metadata = read_tensors(path, ema)
    try:
        recorded = None
        if "tnt_config" in metadata:
            recorded = from_fields(json_of(metadata["tnt_config"], "tnt_config", dict))
        format = recognise(foreign)
        state = format.to_ours(foreign)
        config, heads_known = _config_of(state, recorded)
        _check_complete(state, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Weights(path, format.name, state, config, heads_known, recorded is not None)


def create_model(
    name: str, weights: str | Path | None = None, *, pretrained: bool = False, **overrides: Any
) -> TNT:
    """A published variant, with some config fields changed, with random weights or those of a file.

    `pretrained=True` takes the published ones, with a new head where the classes are others. timm's words
    for the fields are understood too.

    >>> model = create_model("tnt_s", inner_heads=2, classes=10)
    >>> model = create_model("tnt_s", pretrained=True, num_classes=10)
    """
    model = TNT(get_config(name, **{WORDS.get(word, word): value for word, value in overrides.items()}))
    if pretrained and weights is not None:
        raise ValueError("pretrained=True and weights= are both given; leave one out")
    if pretrained:
        load(model, published(name), new_head=model.config.classes != get_config(name).classes)
    elif weights is not None:
        load(model, weights)
    return model


def load(model: TNT, path: str | Path, *, ema: bool = True, new_head: bool = False) -> Weights:
    """Fill a model from a file of any format; a file of another variant is refused by name.

    Patch positions are resized to the model's image size. `new_head=True` keeps the model's own head, for
    another set of classes.
    """
    weights = read(path, ema=ema)
    _fill(model, weights, new_head)
    return weights


def open_model(
    path: str | Path, *, name: str | None = None, ema: bool = True, **changes: Any
) -> tuple[TNT, Weights]:
    """The network that a file holds, whatever its variant, with some config fields changed.

    With a name, a file of another variant is refused.
    """
    weights = read(path, ema=ema)
    config = weights.config if name is None else get_config(name, classes=weights.config.classes)
    model = TNT(config.replace(**changes))
    _fill(model, weights, new_head="classes" in changes)
    return model, weights


def _fill(model: TNT, weights: Weights, new_head: bool) -> None:
    _check_same_network(model.config, weights, new_head)
    state = dict(weights.state)
    for name in POSITIONS:
        if not getattr(model.config, name):
            state.pop(name, None)
    if "patch_position" in state:
        edge = model.config.image_size // model.config.patch_size
        state["patch_position"] = resize_patch_positions(state["patch_position"], (edge, edge))
    if new_head:
        own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("head.")}
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")} | own
    model.load_state_dict(state, strict=True)


def save(model: TNT, path: str | Path, format: str = "tnt") -> None:
    """Write a model's weights in one of the formats of `WRITABLE`."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    _write(state, model.config, Path(path), format)


def name_of(config: TNTConfig) -> str:
    """The published variant that a config is, with what differs from it."""

    def differences(variant: TNTConfig) -> dict[str, Any]:
        fields = (field.name for field in dataclasses.fields(TNTConfig) if field.name != "drop_path")
        return {
            name: getattr(config, name) for name in fields if getattr(config, name) != getattr(variant, name)
        }

    def distance(name: str) -> tuple[bool, bool, int]:
        variant = VARIANTS[name]
        return variant.patch_dim != config.patch_dim, variant.form != config.form, len(differences(variant))

    name = min(VARIANTS, key=distance)
    changes = ", ".join(f"{field}={value}" for field, value in differences(VARIANTS[name]).items())
    return f"{name} ({changes})" if changes else name


def _config_of(state: State, recorded: TNTConfig | None) -> tuple[TNTConfig, bool]:
    """The network that tensors fit, from their shapes; heads and edges in pixels from what was recorded."""
    for name, rank in RANKS.items():
        check_rank(state, name, rank)
    try:
        d = state["class_token"].shape[-1]
        c, channels = state["stem.conv.weight"].shape[:2]
        words = state["to_patch.proj.weight"].shape[1] // c
        ratio = state["blocks.0.outer.mlp.fc1.weight"].shape[0] // d
    except KeyError as missing:
        raise ValueError(f"incomplete weights: no {missing.args[0]}") from None
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


def _check_complete(state: State, config: TNTConfig) -> None:
    with torch.device("meta"):
        expected = TNT(config).state_dict()
    missing = [name for name in expected if name not in state]
    if missing:
        raise ValueError(f"incomplete weights of {name_of(config)}: no {', '.join(missing[:3])}")
    for name, tensor in state.items():
        if name not in expected:
            raise ValueError(f"{name} has no place in {name_of(config)}")
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            raise ValueError(f"{name} has shape {shapes} in {name_of(config)}")


def _check_same_network(model: TNTConfig, weights: Weights, new_head: bool) -> None:
    held = weights.config
    fields = list(ARCHITECTURE) + ([] if model.words == held.words else ["word_edge"])
    if weights.recorded:
        fields += ["patch_size", "word_edge", "outer_heads", "inner_heads"]
    fields += [name for name in POSITIONS if not _switched_off(weights, name, getattr(model, name))]
    fields += [] if new_head else ["classes"]
    differing = sorted(
        {name for name in fields if getattr(model, name) != getattr(held, name)}, key=fields.index
    )
    if differing == ["classes"]:
        raise ValueError(
            f"{weights.path} has a head for {held.classes} classes, the model for {model.classes}; "
            "new_head=True starts a new one"
        )
    if differing:
        listed = ", ".join(f"{name}={getattr(held, name)}, not {getattr(model, name)}" for name in differing)
        raise ValueError(
            f"{weights.path} ({weights.format} format) holds {name_of(held)}, "
            f"the model is {name_of(model)}: {listed}"
        )


def _switched_off(weights: Weights, name: str, wanted: bool) -> bool:
    """Formats without the switch hold zeros where a position is off, which is the same network."""
    return not wanted and name in weights.state and not weights.state[name].any()


def _write(state: State, config: TNTConfig, path: Path, format: str) -> None:
    if format not in WRITABLE:
        raise ValueError(f"unknown format {format!r} to write; valid: {', '.join(WRITABLE)}")
    if format == "official" and config.form != "official":
        raise ValueError(
            f"the official format has no place for {name_of(config)}: its blocks differ; use timm or tnt"
        )
    if format != "tnt":
        state = _with_zero_positions(state, config)
    if format == "official":  # the frozen tensor that the official file registers and never reads
        frozen = {"outer_tokens": torch.zeros(1, config.patches, config.patch_dim)}
    else:
        frozen = {}
    metadata = {"format": "pt", "tnt_config": json.dumps(dataclasses.asdict(config))}
    write_tensors(FORMATS[format].from_ours(state) | frozen, metadata, path)


def _with_zero_positions(state: State, config: TNTConfig) -> State:
    shapes = {
        "patch_position": (1, 1 + config.patches, config.patch_dim),
        "word_position": (1, config.words, config.c),
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()} | state


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tnt.weights", description="Translate the weights of a TNT."
    )
    parser.add_argument(
        "source", metavar="IN", help="official, timm, mmpretrain or our own weights, or timm:NAME, or demo"
    )
    parser.add_argument(
        "target", metavar="OUT", type=Path, help="safetensors; a pickle if it ends in .pth or .pt"
    )
    parser.add_argument("--to", choices=WRITABLE, default="tnt", help="the format to write (default: tnt)")
    parser.add_argument("--raw", action="store_true", help="the trained weights, not their moving average")
    options = parser.parse_args(arguments)
    try:
        weights = read(options.source, ema=not options.raw)
        _write(weights.state, weights.config, options.target, options.to)
    except (ValueError, OSError) as error:
        print(f"tnt.weights: {shown(error)}", file=sys.stderr)
        return 2
    source = shown(options.source)
    count = sum(tensor.numel() for tensor in weights.state.values()) / 1e6
    print(f"{source}: {weights.format} format, {name_of(weights.config)}, {count:.3f} M parameters")
    if not weights.heads_known:
        heads = f"{weights.config.outer_heads} outer and {weights.config.inner_heads} inner heads"
        print(f"{source}: the weights do not tell the number of heads; {heads} are assumed")
    print(f"{shown(options.target)}: written in {options.to} format")
    return 0
