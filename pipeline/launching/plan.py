"""The runs to be done: each once, however many cells of however many tables ask for it."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.identity import id_of, run_id, science
from pipeline.config.machine import About
from pipeline.config.run import RunConfig
from pipeline.data import dataset
from pipeline.errors import UserError
from pipeline.runs.directory import run_directory
from pipeline.runs.records import record_path


@dataclass(frozen=True)
class RequestedRun:
    """A cell with a seed, as a config; `origin` is that of the run whose weights it starts from."""

    config: RunConfig
    ablation: str = ""  # "" for a run that belongs to no table
    cell: str = ""
    origin: RunConfig | None = None
    until_decided: bool = False  # its seed is added after a look at the results of others


@dataclass(frozen=True)
class PlannedRun:
    config: RunConfig
    id: str  # "" while its data are not there: they are part of it
    labels: tuple[str, ...] = ()  # of the cells that it is for, as inner_heads/4
    after: str = ""  # the id of the run that it starts from
    obstacle: str = ""  # why it has no id

    @property
    def directory(self) -> Path:
        return run_directory(self.config, self.id)

    @property
    def record(self) -> Path:
        """The file of its record, which is there once it is done."""
        return record_path(self.config.paths.records, self.id)


def planned(requests: Iterable[RequestedRun], making: bool = True) -> list[PlannedRun]:
    """The runs that were requested, each once; one that others start from stands before them.

    `making`: small sets that can be made are, where they are missing; else nothing is written.
    """
    found: dict[str, PlannedRun] = {}
    for request in requests:
        parent = None
        if request.origin is not None:
            parent = _add(found, _identified(request.origin, making))
        about = About(request.ablation, request.cell, request.until_decided)
        config = dataclasses.replace(request.config, about=about)
        label = (f"{request.ablation}/{request.cell}",) if request.ablation else ()
        _add(found, _identified(config, making, label, parent))
    return list(found.values())


def _identified(
    config: RunConfig, making: bool, labels: tuple[str, ...] = (), parent: PlannedRun | None = None
) -> PlannedRun:
    if parent is not None:
        if parent.obstacle:
            return PlannedRun(config, "", labels, obstacle=parent.obstacle)
        recipe = dataclasses.replace(config.recipe, init=parent.id)
        config = dataclasses.replace(config, recipe=recipe)
    try:
        if making:
            dataset.prepare(config.data)
        id = run_id(config, dataset.fingerprint(config.data))
    except UserError as error:
        return PlannedRun(config, "", labels, obstacle=str(error))
    return PlannedRun(config, id, labels, after=parent.id if parent else "")


def _add(found: dict[str, PlannedRun], run: PlannedRun) -> PlannedRun:
    """One entry for each run; the first cell that asks for it gives the record its ablation and cell."""
    key = run.id or id_of(science(run.config), "")
    before = found.get(key)
    if before is not None:
        about = before.config.about if before.labels else run.config.about
        config = dataclasses.replace(before.config, about=about)
        labels = before.labels + tuple(label for label in run.labels if label not in before.labels)
        run = dataclasses.replace(before, config=config, labels=labels, after=before.after or run.after)
    found[key] = run
    return run
