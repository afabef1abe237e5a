"""The page beside a model on a hub: what it is, what was measured, and where each number comes from.

A number that no record holds is written as not known.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from tnt.complexity.formulas import model_macs
from tnt.untrusted.reading import open_regular, read_json
from tnt.untrusted.showing import shown
from tnt.weights.networks import Config, Network, name_of

UNKNOWN = "not known"
# What the card says of a run, and where its record (`results/README.md`) holds it.
NUMBERS = {
    "top-1, moving average": "ema.top1",
    "top-5, moving average": "ema.top5",
    "loss, moving average": "ema.loss",
    "top-1": "raw.top1",
    "top-5": "raw.top5",
    "loss": "raw.loss",
    "measured on images": "raw.images",
    "device-hours": "device_hours",
    "images per second": "images_per_second",
}
PROVENANCE = {
    "run": "id",
    "scale": "scale",
    "ablation": "ablation",
    "cell": "cell",
    "seed": "seed",
    "weights here": "exported",
    "weights' SHA-256 when the run ended": "weights_sha256",
    "git commit": "commit",
    "uncommitted changes": "dirty",
    "data fingerprint": "fingerprint",
    "devices": "device",
    "world size": "world",
    "hosts": "hosts",
    "jobs": "jobs",
    "attempts": "attempts",
    "versions": "versions",
    "start": "started",
    "end": "ended",
}
# Not in the card: the network has a table of its own, and the rest tells a reader nothing.
OMITTED = ("schema", "sha256", "science", "params", "macs", "right")


def read_record(path: Path) -> dict[str, Any]:
    """A run's record; refused where it is not as the run wrote it."""
    try:
        record: dict[str, Any] = read_json(path, dict)
    except FileNotFoundError:
        raise ValueError(f"no record at {path}") from None
    if "schema" not in record or "id" not in record:
        raise ValueError(f"{path} is no record of a run: it names no schema, or no id")
    content = {name: value for name, value in record.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    if record.get("sha256") != hashlib.sha256(text.encode()).hexdigest():
        raise ValueError(f"{path} was edited or damaged: it does not match its own sha256")
    return record


def check_record(record: dict[str, Any], weights: Path, config: Config) -> None:
    """Refuse a record of other weights, or of another network than the one to be exported."""
    path = weights / "model.safetensors" if weights.is_dir() else weights
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != record.get("weights_sha256"):
        raise ValueError(
            f"the record of run {record['id']} is of other weights than {path}: the SHA-256 of its weights "
            f"begins with {str(record.get('weights_sha256'))[:12]}, not {digest[:12]}"
        )
    ours, science = dataclasses.asdict(config), record.get("science")
    theirs = science.get("model") if isinstance(science, dict) else None
    if not isinstance(theirs, dict):
        raise ValueError(f"the record of run {record['id']} does not say of which network it is")
    for name in ours.keys() & theirs.keys() - {"drop_path"}:
        if ours[name] != theirs[name]:
            raise ValueError(
                f"the record of run {record['id']} is of a network with {name}={theirs[name]}, and this one "
                f"has {name}={ours[name]}: its numbers say nothing of it"
            )


def model_card(model: Network, title: str, record: dict[str, Any] | None = None) -> str:
    """Markdown with the head that hubs read."""
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    record = record or {}
    return "\n".join(
        [
            *("---", "library_name: timm", "license: apache-2.0"),
            *("tags:", "- timm", "- image-classification", "- transformer-in-transformer"),
            "pipeline_tag: image-classification",
            *_index(title, record),
            *("---", ""),
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
                | {name: _found(record, path) for name, path in NUMBERS.items()}
            ),
            "",
            *("## Where it comes from", ""),
            *_table({name: _found(record, path) for name, path in PROVENANCE.items()} | _others(record)),
            *("", "## The network", ""),
            *_table({name: str(value) for name, value in dataclasses.asdict(config).items()}),
            "",
            f"Input: the central {config.image_size}×{config.image_size} pixels of the image, its short side "
            "resized (bicubic) to 1/0.9 of that; mean and deviation 0.5.",
            "",
        ]
    )


def _index(title: str, record: dict[str, Any]) -> list[str]:
    """The results in the form that hubs read, as JSON, which is YAML too."""
    measured, data = record.get(str(record.get("exported"))), record.get("science", {}).get("data", {})
    if not isinstance(measured, dict) or not isinstance(data, dict):
        return []
    metrics = [
        {"type": "accuracy", "name": name, "value": measured[key]}
        for key, name in (("top1", "top-1"), ("top5", "top-5"))
        if key in measured
    ]
    name = str(data.get("name", UNKNOWN))
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": name, "name": name, "split": str(data.get("validation", UNKNOWN))},
        "metrics": metrics,
        "source": {"name": f"run {record['id']}, record {record.get('sha256')}"},
    }
    return [f"model-index: {json.dumps([{'name': title, 'results': [result]}])}"]


def _table(rows: dict[str, str]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _found(record: dict[str, Any], path: str) -> str:
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return UNKNOWN if value is None else _cell(value) or "none"


def _others(record: dict[str, Any]) -> dict[str, str]:
    """The record's other fields, under their own names."""
    named = {path.split(".")[0] for table in (NUMBERS, PROVENANCE) for path in table.values()}
    return {_cell(name): _cell(value) for name, value in record.items() if name not in named | {*OMITTED}}


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
    return shown(" ".join(str(value).split())).replace("|", "\\|").replace("<", "&lt;")
