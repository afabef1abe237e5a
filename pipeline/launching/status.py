"""The status of a run, from its record, its directory, and its job where a scheduler has one.

done      its record exists
running   a process holds its lease, or its job runs
pending   its job waits
stopped   somebody ended it; nothing trains it now
broken    it failed, or was killed
missing   it has not begun
unknown   the scheduler does not answer: it may have a job
no data   its data are not there, so it has no id yet
"""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.run import RunConfig
from pipeline.errors import UserError, WorkFailed
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import launches
from pipeline.launching.slurm.commands import Job
from pipeline.runs import attempts, records
from pipeline.runs import state as states
from pipeline.runs.directory import LOG, OUTPUT
from pipeline.runs.log import printed_error, tail
from pipeline.runs.usage import Usage, told

STATES = ("done", "running", "pending", "stopped", "broken", "missing", "unknown", "no data")
# Ends that a run may have had no time to note, by Slurm's word for them.
ENDS = {
    "timeout": "its time was over",
    "node_fail": "its node failed",
    "boot_fail": "its node did not start",
    "out_of_memory": "out of memory",
    "preempted": "preempted, and not queued again",
    "deadline": "its deadline has passed",
}


@dataclass(frozen=True)
class RunStatus:
    run: PlannedRun
    state: str
    step: int = 0
    steps: int | None = None
    epoch: float | None = None
    images_per_second: float | None = None
    top1: float | None = None  # percent; the last measured, of what counts
    seconds_left: float | None = None
    device_hours: float | None = None  # that it took, of one that is done
    attempts: int = 0
    where: str = ""  # who holds it, or its job; of one that is done, where and when
    error: str = ""  # the last one, of a run that is not done
    usage: Usage | None = None  # what it took so far, where that is known


def check_access(runs: Iterable[PlannedRun], writing: bool = True) -> None:
    """Refuse runs of somebody else, which are their owner's alone, and `writing` where nobody can."""
    directories = [run.directory for run in runs]
    folders = [folder for one in directories for folder in (one.parent, one.parent / launches.FOLDER)]
    for place in dict.fromkeys([*folders, *directories]):
        wanted = os.R_OK | os.X_OK | (os.W_OK if writing else 0)
        if place.exists() and not os.access(place, wanted, effective_ids=True):
            if os.statvfs(place).f_flag & os.ST_RDONLY:
                raise WorkFailed(f"{place} is on a read-only file system: choose another by paths.runs=…")
            raise UserError(
                f"{place} is {place.owner()}'s, who alone may use it: choose your own with paths.runs=…, "
                f"or share it from the start: chmod 2770 {place}, and umask 002 for both; "
                "records may be shared (paths.records), and finished runs are not trained again"
            )


def status_of(run: PlannedRun, job: Job | None = None, asked: bool = True) -> RunStatus:
    """`asked`: whether the scheduler was; where it does not answer, nobody knows of jobs that wait.

    A run whose files cannot be read takes nothing away from the others.
    """
    try:
        return _status_of(run, job, asked)
    except (UserError, OSError) as error:
        return RunStatus(run, "broken", error=str(error))


def _status_of(run: PlannedRun, job: Job | None, asked: bool) -> RunStatus:
    if not run.id:
        return RunStatus(run, "no data", error=run.obstacle)
    if run.record.is_file():
        return _finished(run)
    directory = run.directory
    holder, starts = attempts.holder(directory), len(attempts.attempts(directory))
    state, where, error = "missing", "", ""
    if holder or (job and job.live):
        state = "pending" if not holder and job and job.waiting else "running"
        where = str(holder or job) + (", ending" if holder and job and job.ending else "")
    elif not asked:
        state = "unknown"
    elif starts or _printed(directory) or (job and job.state != "cancelled"):
        state, error = _ended(directory, job)
    come = _progress(run.config, directory)
    if state != "running":
        come.pop("seconds_left", None)
    jobs = job.used if job else ()
    took = told(run.config, jobs, sharing=run.config.cluster.pack) if jobs else None
    return RunStatus(run, state, attempts=starts, where=where, error=error, usage=took, **come)


def _ended(directory: Path, job: Job | None) -> tuple[str, str]:
    """Whether a run that nothing trains was stopped or broke, and why; Slurm may know what it could not."""
    end = attempts.ending(directory)
    told = f"job {job.id}: {ENDS.get(job.state, job.state)}" if job else ""
    if job and job.state == "cancelled":
        return "stopped", str(end) if end and end.end == attempts.STOPPED else told
    if end and end.end == attempts.STOPPED:
        lost = end.again and attempts.attempts(directory)[-1].job
        return ("broken", f"{end}; no job of it is left") if lost else ("stopped", str(end))
    if job and job.state in ENDS:
        return "broken", f"{told}; {end}" if end else told
    return "broken", attempts.last_end(directory) or printed_error(directory) or _printed_by(directory, told)


def _printed_by(directory: Path, told: str) -> str:
    """What a job printed last that ended before the run had begun: its modules or its code may be gone."""
    outputs = launches.outputs(directory.parent, directory.name)
    lines = [line for path in outputs for line in tail(path)]
    errors = [line for line in lines if line.startswith("error: ")]
    return ": ".join(filter(None, [told, *(errors or lines)[-1:]]))


def _finished(run: PlannedRun) -> RunStatus:
    record = records.read(run.record)
    return RunStatus(
        run,
        "done",
        step=record.steps,
        steps=record.steps,
        epoch=float(run.config.recipe.epochs),
        images_per_second=record.images_per_second,
        top1=record.best.top1,
        seconds_left=0.0,
        device_hours=record.device_hours,
        attempts=record.attempts,
        usage=record.usage,
        where=f"{', '.join(record.hosts)}, {record.ended[:10]}",
    )


def _progress(config: RunConfig, directory: Path) -> dict[str, Any]:
    state = states.read(directory)
    if state is None:
        return {}
    found: dict[str, Any] = {"step": state.step, "top1": state.top1}
    if state.steps:
        found["steps"] = state.steps
        found["epoch"] = round(config.recipe.epochs * state.step / state.steps, 2)
    if rate := state.images_per_second:
        found["images_per_second"] = rate
        left = (state.steps - state.step) * state.images_per_step / rate
        found["seconds_left"] = round(max(0.0, left - max(0.0, time.time() - state.time)), 1)
    return found


def counted(found: Iterable[RunStatus]) -> dict[str, int]:
    """How many runs are in each state."""
    states = [one.state for one in found]
    return {state: states.count(state) for state in STATES if state in states}


def statuses(runs: Iterable[PlannedRun], jobs: Mapping[str, Job] | None) -> list[RunStatus]:
    """`jobs`: None where the scheduler does not answer."""
    return [status_of(run, (jobs or {}).get(run.id), jobs is not None) for run in runs]


def _printed(directory: Path) -> bool:
    files = (directory / name for name in (LOG, OUTPUT))
    return any(path.exists() and path.stat().st_size > 0 for path in files)
