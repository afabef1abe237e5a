"""Published records of runs that nobody trained, and what the report makes of them, for the tables' tests."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablations import report, spec
from ablations.reporting.collect import Report, collect
from ablations.reporting.tables import Entry, Table
from pipeline.config.identity import run_id, science
from pipeline.config.run import RunConfig
from pipeline.data.loading.sampler import ROUND
from pipeline.data.packing.sources.source import TABLE_2
from pipeline.runs import answers, records
from pipeline.runs.records import Measures, Record

DIGITS = 360  # images held out


def record_of(config: RunConfig, top1: float, *, top5: float | None = None, **changes: Any) -> Record:
    """As the run of that config would leave it on the whole of the published data."""
    fingerprint = changes.pop("fingerprint", hashlib.sha256(config.data.name.encode()).hexdigest())
    published = TABLE_2.get(config.data.name)
    images, views = (
        (published.samples["validation"], published.samples["train"]) if published else (DIGITS, 1437)
    )
    recipe = config.recipe
    views = views // ROUND * ROUND if recipe.repeats > 1 else views
    top5 = min(100.0, top1 + 14) if top5 is None else top5
    values: dict[str, Any] = {
        "id": run_id(config, fingerprint),
        "science": science(config),
        "fingerprint": fingerprint,
        "scale": config.scale,
        "seed": config.seed,
        "ablation": config.about.ablation,
        "cell": config.about.cell,
        "raw": Measures(max(0.0, top1 - 0.5), top5, 0.9, images),
        "ema": Measures(top1, top5, 0.8, images),
        "exported": "ema",
        "weights_sha256": hashlib.sha256(f"{science(config)}".encode()).hexdigest(),
        "params": 23_768_584,
        "macs": 5_216_875_008,
        "steps": recipe.epochs * (views // recipe.global_batch),
        "images_per_second": 5000.0,
        "device_hours": 160.5,
        "device": "NVIDIA A100-SXM4-80GB",
        "world": 8,
        "hosts": ("node17",),
        "jobs": ("4711_3",),
        "attempts": 2,
        "commit": "c" * 40,
        "dirty": False,
        "versions": {"python": "3.11.2", "torch": "2.15.0", "deepspeed": "0.19.8"},
        "started": "2026-01-31T10:00:00Z",
        "ended": "2026-02-01T11:00:00Z",
    }
    return Record(**(values | changes))


def write_evaluation(folder: Path, anchor: str, data: str, top1: float, images: int = 50_000) -> None:
    """As evaluate.py leaves it of published weights."""
    right = np.arange(images) < round(top1 * images / 100)
    top1 = 100 * int(right.sum()) / images
    values: dict[str, Any] = {
        "anchor": anchor,
        "data": {"name": data},
        "weights_sha256": "a" * 64,
        "top1": top1,
        "top5": 95.0,
    }
    values |= {
        "images": images,
        "images_per_second": 1234.5,
        "right": answers.as_text(right),
        "answers_sha256": "b" * 64,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{data}-{anchor}.json").write_text(json.dumps(values))


class Shelf:
    """A folder of records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        ablation: str,
        cell: str,
        top1: float,
        seed: int = 0,
        *,
        overrides: Sequence[str] = (),
        init: str = "",
        asked: bool = True,
        **changes: Any,
    ) -> Record:
        """Publish the record of a cell; one that starts from others' weights gets those of `init`."""
        found = spec.load(ablation)[ablation]
        config = spec.composed(found, found.cell(cell), [*overrides, f"seed={seed}"])
        config = dataclasses.replace(config, recipe=dataclasses.replace(config.recipe, init=init))
        if asked:
            config = dataclasses.replace(
                config, about=dataclasses.replace(config.about, ablation=ablation, cell=cell)
            )
        return self.put(record_of(config, top1, **changes))

    def put(self, record: Record) -> Record:
        records.publish(record, self.folder)
        return record

    def fill(self, ablation: str, values: dict[str, Sequence[float]], overrides: Sequence[str] = ()) -> None:
        """Every cell with its accuracies, one a seed."""
        for cell, accuracies in values.items():
            for seed, top1 in enumerate(accuracies):
                self.add(ablation, cell, top1, seed, overrides=overrides)


def collected(shelf: Shelf, scale: str = "paper") -> Report:
    return collect([shelf.folder], scale, counted=report.KEPT)


def table(found: Report, name: str, protocol: str = "") -> Table:
    (one,) = [each for each in found.tables if each.ablation == name and each.protocol == protocol]
    return one


def entry(found: Table, cell: str, column: str = "top1") -> Entry:
    (one,) = [e for e in found.entries if e.key == f"{found.name}/{cell}" and e.column == column]
    return one


def run(shelf: Shelf, *arguments: str) -> int:
    """The report's command on this shelf."""
    results = shelf.folder.parent
    return report.main(["--records", str(shelf.folder), "--results", str(results), *arguments])
