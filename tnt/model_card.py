"""The page beside a model on a hub: what it is, what was measured, and where each number comes from.

A number that no record holds is written as not known.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tnt.formulas import model_macs
from tnt.model import TNT
from tnt.weights import name_of

UNKNOWN = "not known"
# What the card says of a run, and where its record may hold it (the first path that is there counts).
NUMBERS = {
    "top-1, moving average": ("top1_ema", "metrics.top1_ema", "ema.top1"),
    "top-5, moving average": ("top5_ema", "metrics.top5_ema", "ema.top5"),
    "loss, moving average": ("loss_ema", "metrics.loss_ema", "ema.loss"),
    "top-1": ("top1", "metrics.top1", "raw.top1"),
    "top-5": ("top5", "metrics.top5", "raw.top5"),
    "loss": ("loss", "metrics.loss", "raw.loss"),
    "GPU-hours": ("gpu_hours", "metrics.gpu_hours"),
    "images per second": ("images_per_second", "metrics.images_per_second", "images_per_s"),
}
PROVENANCE = {
    "run": ("run_id",),
    "scale": ("scale",),
    "ablation": ("ablation",),
    "cell": ("cell",),
    "seed": ("seed", "config.seed"),
    "git commit": ("git_commit", "git.commit", "commit"),
    "uncommitted changes": ("git_dirty", "git.dirty", "dirty"),
    "data manifest": ("manifest_fingerprint", "manifest.fingerprint", "manifest"),
    "checkpoint SHA-256": ("checkpoint_sha256", "checkpoint.sha256"),
    "devices": ("device",),
    "world size": ("world_size",),
    "versions": ("versions",),
    "start": ("start", "started"),
    "end": ("end", "ended", "finished"),
}


def read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no record at {path}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no record: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path} is no record: it holds a {type(record).__name__}, not named fields")
    return record


def model_card(model: TNT, title: str, record: dict[str, Any] | None = None) -> str:
    """Markdown with the head that hubs read."""
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    record = record or {}
    return "\n".join(
        [
            *("---", "library_name: timm", "license: apache-2.0"),
            *("tags:", "- timm", "- image-classification", "- transformer-in-transformer"),
            *("pipeline_tag: image-classification", "---", ""),
            *(f"# {title}", ""),
            f"`{name_of(config)}` of *Transformer in Transformer* ([arXiv 2103.00112]"
            "(https://arxiv.org/abs/2103.00112)).",
            "",
            *("## Use", "", "```python", "import timm", "", f'folder = "{title}"  # where this page lies'),
            'model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()',
            "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))",
            *("```", ""),
            *("## What was measured", ""),
            *_table(
                {
                    "parameters": f"{parameters / 1e6:.3f} M",
                    "multiply-adds": f"{model_macs(config) / 1e9:.3f} G",
                }
                | {name: _found(record, paths) for name, paths in NUMBERS.items()}
            ),
            "",
            *("## Where it comes from", ""),
            *_table({name: _found(record, paths) for name, paths in PROVENANCE.items()} | _others(record)),
            *("", "## The network", ""),
            *_table({name: str(value) for name, value in dataclasses.asdict(config).items()}),
            "",
            f"Input: the central {config.image_size}×{config.image_size} pixels of the image, its short side "
            "resized (bicubic) to 1/0.9 of that; mean and deviation 0.5.",
            "",
        ]
    )


def _table(rows: dict[str, str]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _found(record: dict[str, Any], paths: tuple[str, ...]) -> str:
    for path in paths:
        value: Any = record
        for name in path.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            return _cell(value)
    return UNKNOWN


def _others(record: dict[str, Any]) -> dict[str, str]:
    """What else the record says, under its own names; its config stands in the table of the network."""
    named = {
        path.split(".")[0] for table in (NUMBERS, PROVENANCE) for paths in table.values() for path in paths
    }
    return {_cell(name): _cell(value) for name, value in record.items() if name not in named | {"config"}}


def _cell(value: Any) -> str:
    """One line of a table, whatever a record holds."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        value = ", ".join(f"{name} {held}" for name, held in value.items())
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    if isinstance(value, float):
        value = f"{value:.6g}"
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
