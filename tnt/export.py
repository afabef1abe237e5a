"""Export a model: as an ONNX graph, a torch.export program, timm's weights, or a folder for a hub.

    python -m tnt.export tnt_s.onnx --to onnx --weights tnt_s.safetensors
    python -m tnt.export tnt-s/ --to hub-folder --weights tnt_s.safetensors --record results/records/….json

Each is written under a temporary name, read back by the program that it is for, and kept only if its logits
equal the model's within 1e-4 of the largest (or of 1, where all are smaller).
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tnt import weights
from tnt.commandline import add_model_options, choose_model, run, say
from tnt.config import PyramidConfig
from tnt.images import RGB
from tnt.model_card import check_record, model_card, read_record
from tnt.predict import class_names
from tnt.untrusted.arguments import Parser
from tnt.untrusted.writing import storing
from tnt.weights.named import located
from tnt.weights.networks import Config, Network

TOLERANCE = 1e-4
BATCHES = (1, 3)  # checked: neither is the batch that the graph was traced with


def to_onnx(model: Network, path: str | Path) -> float:
    """An ONNX graph with a dynamic batch, checked by onnxruntime; the largest gap between their logits.

    >>> to_onnx(tnt.create_model("tnt_s", weights="tnt_s.safetensors"), "tnt_s.onnx")
    """
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401 (torch's exporter needs it, and its own message is less clear)

    def read_back(written: Path) -> Callable[[Tensor], Tensor]:
        onnx.checker.check_model(written)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    def write(model: Network, target: Path) -> None:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (_images(model.config, 2),),
                target,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                dynamo=True,
                external_data=False,
                verbose=False,
            )

    return _export(model, Path(path), write, read_back)


def to_program(model: Network, path: str | Path) -> float:
    """A torch.export program (`torch.export.load(path).module()`) with a dynamic batch."""

    def write(model: Network, target: Path) -> None:
        shapes = {"images": {0: torch.export.Dim("batch")}}
        with torch.no_grad():
            program = torch.export.export(model, (_images(model.config, 2),), dynamic_shapes=shapes)
        content = io.BytesIO()
        torch.export.save(program, content)  # into a file, it hides a full disk behind an error of its own
        target.write_bytes(content.getbuffer())

    def read_back(written: Path) -> Callable[[Tensor], Tensor]:
        with written.open("rb") as file:
            return torch.export.load(file).module()

    return _export(model, Path(path), write, read_back)


def to_timm(model: Network, path: str | Path) -> float:
    """Weights under timm's names, for `timm.create_model(name, checkpoint_path=…)`."""
    architecture, arguments = timm_model(model.config)

    def read_back(written: Path) -> Callable[[Tensor], Tensor]:
        import timm

        return timm.create_model(architecture, checkpoint_path=str(written), **arguments).eval()

    return _export(model, Path(path), lambda model, target: weights.save(model, target, "timm"), read_back)


def to_hub_folder(
    model: Network, folder: str | Path, record: dict[str, Any] | None = None, names: list[str] | None = None
) -> float:
    """A folder as hubs hold timm models: `timm.create_model("local-dir:FOLDER", pretrained=True)`."""
    names = class_names(model) if names is None else names
    config = json.dumps(timm_config(model.config, names), indent=2, ensure_ascii=False)

    def write(model: Network, target: Path) -> None:
        target.mkdir()
        weights.save(model, target / "model.safetensors", "timm")
        (target / "config.json").write_text(config + "\n", encoding="utf-8")
        (target / "README.md").write_text(model_card(model, Path(folder).name, record), encoding="utf-8")

    def read_back(written: Path) -> Callable[[Tensor], Tensor]:
        import timm

        return timm.create_model(f"local-dir:{written}", pretrained=True).eval()

    return _export(model, Path(folder), write, read_back)


def timm_model(config: Config) -> tuple[str, dict[str, Any]]:
    """The name that timm gives the nearest network, and the arguments that make it this one."""
    if isinstance(config, PyramidConfig):
        raise ValueError("timm has no PyramidTNT; export to onnx or torch-export instead")
    if config.se != "none":
        raise ValueError(f"timm's TNT has no squeeze-and-excitation (se={config.se}); export to onnx instead")
    size = "tnt_b" if config.patch_dim == 640 and config.form == "official" else "tnt_s"
    name = f"{size}_legacy_patch16_224" if config.form == "legacy" else f"{size}_patch16_224"
    arguments = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "in_chans": config.channels,
        "num_classes": config.classes,
        "embed_dim": config.patch_dim,
        "inner_dim": config.c,
        "depth": config.depth,
        "num_heads_inner": config.inner_heads,
        "num_heads_outer": config.outer_heads,
        "mlp_ratio": float(config.mlp_ratio),
        "first_stride": config.word_edge,
    }
    return name, arguments


def timm_config(config: Config, names: list[str]) -> dict[str, Any]:
    """The config.json that timm reads; classes are named by their labels and described in words."""
    architecture, arguments = timm_model(config)
    labels = [str(label) for label in range(config.classes)]
    return {
        "architecture": architecture,
        "num_classes": config.classes,
        "num_features": config.patch_dim,
        "global_pool": "token",
        "label_names": labels,
        "label_descriptions": dict(zip(labels, names, strict=True)),
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "tnt_lab",
            "custom_load": False,
            "input_size": [config.channels, config.image_size, config.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 0.9,
            "crop_mode": "center",
            "mean": [0.5] * config.channels,
            "std": [0.5] * config.channels,
            "num_classes": config.classes,
            "pool_size": None,
            "first_conv": "pixel_embed.proj",
            "classifier": "head",
            "license": "apache-2.0",
            "paper_ids": "arXiv:2103.00112",
            "paper_name": "Transformer in Transformer",
        },
    }


def _export(
    model: Network,
    path: Path,
    write: Callable[[Network, Path], None],
    read_back: Callable[[Path], Callable[[Tensor], Tensor]],
) -> float:
    """Write a copy, compare what comes back, publish; the largest gap between the logits."""
    model = copy.deepcopy(model).cpu().float().eval()
    with _published(path) as temporary:
        with storing(path):
            write(model, temporary)
        theirs = read_back(temporary)
        gap = 0.0
        for batch in BATCHES:
            images = _images(model.config, batch)
            with torch.no_grad():
                expected, found = model(images), theirs(images)
            scale = max(1.0, expected.abs().max().item())
            gap = max(gap, (found - expected).abs().max().item() / scale)
        if not gap <= TOLERANCE:
            raise ValueError(
                f"{path} was not written: its logits differ by {gap:.1e}, {TOLERANCE} is allowed"
            )
    return gap


@contextmanager
def _published(path: Path) -> Iterator[Path]:
    """A temporary name of the same ending, which becomes the given one if all went well."""
    if not path.absolute().parent.is_dir():
        raise ValueError(f"no folder {path.absolute().parent} for {path.name}; make it first")
    if path.is_dir() and any(path.iterdir()):
        raise ValueError(f"{path} is there already and not empty; remove it or choose another name")
    temporary = path.absolute().with_name(f"tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        if path.is_dir():
            path.rmdir()
        temporary.replace(path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def _images(config: Config, batch: int) -> Tensor:
    shape = (batch, getattr(config, "channels", RGB), config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(batch))


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m tnt.export", description="Export a model.")
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="a file (.onnx, .pt2, .safetensors) or a folder"
    )
    parser.add_argument("--to", required=True, choices=TARGETS)
    parser.add_argument(
        "--record", type=Path, metavar="JSON", help="a run's record: its numbers go into the model card"
    )
    parser.add_argument("--classes", metavar="FILE", help="names, one a line, for the hub's config.json")
    add_model_options(parser)
    options = parser.parse_args(arguments)
    return run("tnt.export", lambda: _main(options))


def _main(options: argparse.Namespace) -> int:
    if options.to != "hub-folder" and (options.record or options.classes):
        raise ValueError(
            "--record and --classes describe a hub-folder; leave them out or give --to hub-folder"
        )
    suffix = SUFFIXES[options.to]
    if options.out.suffix not in suffix:
        raise ValueError(f"{options.out}: a name for {options.to} ends in {' or '.join(suffix)}")
    record = read_record(options.record) if options.record else None
    chosen = choose_model(options, takes_others=options.to in ("onnx", "torch-export"))
    if chosen.random:
        print("tnt.export: the weights are random", file=sys.stderr)
    if record:
        if chosen.random:
            raise ValueError("--record says where weights come from; random ones come from no run")
        check_record(record, located(options.weights), chosen.model.config)
    say(f"exporting {chosen.name} for {options.to}, and comparing its logits")
    if options.to == "hub-folder":
        gap = to_hub_folder(chosen.model, options.out, record, class_names(chosen.model, options.classes))
    else:
        gap = TARGETS[options.to](chosen.model, options.out)
    print(f"{options.out}: {chosen.name} for {options.to}; logits agree within {gap:.1e}")
    return 0


TARGETS: dict[str, Callable[..., float]] = {
    "onnx": to_onnx,
    "torch-export": to_program,
    "timm": to_timm,
    "hub-folder": to_hub_folder,
}
SUFFIXES = {
    "onnx": (".onnx",),
    "torch-export": (".pt2",),
    "timm": (".safetensors", ".pth"),
    "hub-folder": ("",),
}

if __name__ == "__main__":
    sys.exit(main())
