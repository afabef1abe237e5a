"""The status of a run, from its record, its directory, and its job where a scheduler has one.

done      its record exists
running   a process holds its lease, or its job runs
pending   its job waits
broken    it has begun, and nothing trains it now
missing   it has not begun
no data   its data are not there, so it has no id yet
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.run import RunConfig
from pipeline.errors import UserError
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm.commands import Job
from pipeline.runs import attempts, records
from pipeline.runs.directory import LOG, METRICS, OUTPUT, TIMING, run_directory
from pipeline.runs.log import newest_rows, printed_error

STATES = ("done", "running", "pending", "broken", "missing", "no data")


@dataclass(frozen=True)
class RunStatus:
    id: str
    labels: tuple[str, ...]
    state: str
    step: int = 0
    steps: int | None = None
    epoch: float | None = None
    images_per_second: float | None = None
    top1: float | None = None  # percent; the last measured, of what counts
    seconds_left: float | None = None
    attempts: int = 0
    where: str = ""  # who holds it, or its job; of one that is done, where and when
    error: str = ""  # the last one, of a run that is not done


def status_of(run: PlannedRun, job: Job | None = None) -> RunStatus:
    if not run.id:
        return RunStatus("", run.labels, "no data", error=run.obstacle)
    if records.exists(run.config.paths.records, run.id):
        return _finished(run)
    directory = run_directory(run.config, run.id)
    holder, starts = attempts.holder(directory), len(attempts.attempts(directory))
    state = where = error = ""
    if holder or (job and job.live):
        state = "pending" if not holder and job and job.state == "pending" else "running"
        where = str(holder or _named(job))
    elif starts or _printed(directory) or (job and job.state != "cancelled"):
        state, said = "broken", f"job {job.id}: {job.state}" if job else ""
        error = attempts.last_end(directory) or printed_error(directory) or said
    come = _progress(run.config, directory)
    if state != "running":
        come.pop("seconds_left", None)
    return RunStatus(
        run.id, run.labels, state or "missing", attempts=starts, where=where, error=error, **come
    )


def _finished(run: PlannedRun) -> RunStatus:
    try:
        record = records.read(records.record_path(run.config.paths.records, run.id))
    except UserError as error:
        return RunStatus(run.id, run.labels, "broken", error=str(error))
    return RunStatus(
        run.id,
        run.labels,
        "done",
        step=record.steps,
        steps=record.steps,
        epoch=float(run.config.recipe.epochs),
        images_per_second=record.images_per_second,
        top1=record.best.top1,
        seconds_left=0.0,
        attempts=record.attempts,
        where=f"{', '.join(record.hosts)}, {record.ended[:10]}",
    )


def _progress(config: RunConfig, directory: Path) -> dict[str, Any]:
    """How far it has come, from the last lines that it wrote."""
    timing, metrics = newest_rows(directory / TIMING), newest_rows(directory / METRICS)
    if not timing:
        return {}
    last = timing[-1]  # after a kill it may have gone back to an earlier step
    found: dict[str, Any] = {"step": last["step"]}
    size = next((row for row in reversed(timing) if "steps" in row), None)
    rate = next((row["images_per_second"] for row in reversed(timing) if "images_per_second" in row), None)
    scored = next((row for row in reversed(metrics) if "evaluated" in row), None)
    if scored:
        found["top1"] = scored.get("ema_top1", scored.get("top1"))
    if size:
        found["steps"] = size["steps"]
        found["epoch"] = round(config.recipe.epochs * last["step"] / size["steps"], 2)
    if size and rate:
        found["images_per_second"] = rate
        behind = max(0.0, time.time() - last["time"]) if "time" in last else 0.0
        left = (size["steps"] - last["step"]) * size["images"] / rate
        found["seconds_left"] = round(max(0.0, left - behind), 1)
    return found


def counted(found: Iterable[RunStatus]) -> dict[str, int]:
    """How many runs are in each state."""
    states = [one.state for one in found]
    return {state: states.count(state) for state in STATES if state in states}


def statuses(runs: Iterable[PlannedRun], jobs: Mapping[str, Job]) -> list[RunStatus]:
    return [_status_of(run, jobs.get(run.id)) for run in runs]


def _status_of(run: PlannedRun, job: Job | None) -> RunStatus:
    """A run whose files cannot be read takes nothing away from the others."""
    try:
        return status_of(run, job)
    except (UserError, OSError) as error:
        return RunStatus(run.id, run.labels, "broken", error=str(error))


def _named(job: Job | None) -> str:
    return f"job {job.id}{f' ({job.reason})' if job.reason else ''}" if job else ""


def _printed(directory: Path) -> bool:
    files = (directory / name for name in (LOG, OUTPUT))
    return any(path.exists() and path.stat().st_size > 0 for path in files)
