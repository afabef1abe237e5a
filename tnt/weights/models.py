"""Weights in every form in which TNT was published: recognised, checked, translated.

    python -m tnt.weights tnt_s.pth.tar tnt_s.safetensors --to timm

Reading never runs code that a file brings: pickles are opened with `weights_only=True`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tnt.config import TNTConfig, from_fields, get_config
from tnt.untrusted.arguments import Parser
from tnt.untrusted.reading import json_of
from tnt.untrusted.showing import shown
from tnt.weights.named import located, published
from tnt.weights.networks import (
    Config,
    Network,
    config_of,
    differing_fields,
    fitted,
    formats_of,
    name_of,
    network,
    recognise,
)
from tnt.weights.tensors import State, read_tensors, write_tensors

WRITABLE = ("tnt", "timm", "official")
# timm's words for our fields.
WORDS = {
    "num_classes": "classes",
    "img_size": "image_size",
    "in_chans": "channels",
    "drop_path_rate": "drop_path",
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
    config: Config
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
        config, heads_known = config_of(state, recorded)
        _check_complete(state, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Weights(path, format.name, state, config, heads_known, recorded is not None)


def create_model(
    name: str, weights: str | Path | None = None, *, pretrained: bool = False, **overrides: Any
) -> Any:
    """A published TNT or PyramidTNT, with some config fields changed, with random weights or those of a file.

    `pretrained=True` takes the published ones, with a new head where the classes are others. timm's words
    for the fields are understood too.

    >>> model = create_model("tnt_s", inner_heads=2, classes=10)
    >>> model = create_model("tnt_s", pretrained=True, num_classes=10)
    """
    model = network(get_config(name, **{WORDS.get(word, word): value for word, value in overrides.items()}))
    if pretrained and weights is not None:
        raise ValueError("pretrained=True and weights= are both given; leave one out")
    if pretrained:
        load(model, published(name), new_head=model.config.classes != get_config(name).classes)
    elif weights is not None:
        load(model, weights)
    return model


def load(model: Network, path: str | Path, *, ema: bool = True, new_head: bool = False) -> Weights:
    """Fill a model from a file of any format; a file of another variant is refused by name.

    Patch positions are resized to the model's image size. `new_head=True` keeps the model's own head, for
    another set of classes.
    """
    weights = read(path, ema=ema)
    _fill(model, weights, new_head)
    return weights


def open_model(
    path: str | Path, *, name: str | None = None, ema: bool = True, **changes: Any
) -> tuple[Any, Weights]:
    """The network that a file holds, whatever its variant, with some config fields changed.

    With a name, a file of another variant is refused.
    """
    weights = read(path, ema=ema)
    config = weights.config if name is None else get_config(name, classes=weights.config.classes)
    model = network(config.replace(**changes))
    _fill(model, weights, new_head="classes" in changes)
    return model, weights


def _fill(model: Network, weights: Weights, new_head: bool) -> None:
    _check_same_network(model.config, weights, new_head)
    state = fitted(weights.state, model.config)
    if new_head:
        own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("head.")}
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")} | own
    model.load_state_dict(state, strict=True)


def save(model: Network, path: str | Path, format: str = "tnt") -> None:
    """Write a model's weights in one of the formats of `WRITABLE`."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    _write(state, model.config, Path(path), format)


def _check_complete(state: State, config: Config) -> None:
    with torch.device("meta"):
        expected = network(config).state_dict()
    missing = [name for name in expected if name not in state]
    if missing:
        raise ValueError(f"incomplete weights of {name_of(config)}: no {', '.join(missing[:3])}")
    for name, tensor in state.items():
        if name not in expected:
            raise ValueError(f"{name} has no place in {name_of(config)}")
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            raise ValueError(f"{name} has shape {shapes} in {name_of(config)}")


def _check_same_network(model: Config, weights: Weights, new_head: bool) -> None:
    held = weights.config
    differing = differing_fields(model, held, weights.state, weights.recorded, new_head)
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


def _write(state: State, config: Config, path: Path, format: str) -> None:
    formats = formats_of(config)
    if format not in WRITABLE:
        raise ValueError(f"unknown format {format!r} to write; valid: {', '.join(WRITABLE)}")
    if format not in formats:
        raise ValueError(f"{format} has no PyramidTNT; write {' or '.join(formats)}")
    if format == "official" and config.form == "legacy":
        raise ValueError(
            f"the official format has no place for {name_of(config)}: its blocks differ; use timm or tnt"
        )
    frozen = {}
    if isinstance(config, TNTConfig) and format != "tnt":
        state = _with_zero_positions(state, config)
        if format == "official":  # the tensor that the official file registers and never reads
            frozen = {"outer_tokens": torch.zeros(1, config.patches, config.patch_dim)}
    metadata = {"format": "pt", "tnt_config": json.dumps(dataclasses.asdict(config))}
    write_tensors(formats[format].from_ours(state) | frozen, metadata, path)


def _with_zero_positions(state: State, config: TNTConfig) -> State:
    shapes = {
        "patch_position": (1, 1 + config.patches, config.patch_dim),
        "word_position": (1, config.words, config.c),
    }
    return {name: torch.zeros(shape) for name, shape in shapes.items()} | state


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m tnt.weights", description="Translate the weights of a TNT.")
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
