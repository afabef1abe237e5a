"""Submits runs to Slurm as array jobs, each run once, however often and from wherever it is asked.

submitit writes the batch script and calls sbatch (`arrays.py`). A task finds its run by its number in the
array (`launches.py`), continues from what is in the run's directory, and ends as any run does.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError, WorkFailed
from pipeline.launching import snapshot
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import commands, launches, preflight, resources
from pipeline.launching.slurm.arrays import ArrayExecutor
from pipeline.launching.slurm.launches import Launch
from pipeline.runs import attempts, records
from pipeline.runs.directory import write_config

# Paths go into lines of the batch script, where % and \\ have a meaning for Slurm.
PATH = re.compile(r"[^\x00-\x1f\x7f%\\'\"`$]+")
RANK = "pipeline/launching/slurm/rank.sh"  # in the folder of the code


@dataclass(frozen=True)
class Submitted:
    id: str
    job: str  # "" where a process outside of Slurm trains it
    new: bool  # False where another launch has submitted it, or a batch script trains it


def submit(runs: Sequence[PlannedRun], calibration: float = 0.0) -> list[Submitted]:
    """Submit the runs that are neither finished nor in the queue; the jobs of all unfinished runs.

    `calibration`: for how many seconds they train to be measured; 0: to their ends.
    """
    if not runs:
        return []
    directory, ids = Path(runs[0].config.paths.runs).absolute(), [run.id for run in runs]
    for path in (directory, Path(sys.executable)):
        check_path(path)
    with launches.submitting(directory):
        for line in launches.adopt(directory):
            print(line, file=sys.stderr)
        jobs = {id: job.id for id, job in launches.jobs(directory, ids).items() if job.live}
        jobs |= {id: "" for id in ids if id not in jobs and attempts.holder(directory / id)}
        before = set(jobs)
        missing = [
            run for run in runs if run.id not in jobs and not records.exists(run.config.paths.records, run.id)
        ]
        if missing:
            largest = int(preflight.check(missing).get("MaxArraySize", "1001"))
            code = snapshot.take(directory)
            for group in groups(missing, largest):
                launch = Launch.begin(directory, [run.id for run in group], calibration)
                _give(launch, group, code, jobs.get(group[0].after, ""))
                jobs |= {run.id: launch.task(run.id) for run in group}
    return [Submitted(id, jobs[id], id not in before) for id in ids if id in jobs]


def cancel(runs: Path, ids: Sequence[str]) -> list[str]:
    """Cancel the jobs of these runs; returns those jobs."""
    runs = runs.absolute()
    with launches.submitting(runs):
        launches.adopt(runs)
        jobs = [job.id for job in launches.jobs(runs, ids).values() if job.live]
        commands.cancel(jobs)
    return jobs


def groups(runs: Sequence[PlannedRun], largest: int) -> list[list[PlannedRun]]:
    """Runs for one array each: with the same resources, and starting from the same run or from none."""
    alike: dict[str, list[PlannedRun]] = {}
    for run in runs:
        site = run.config.cluster
        key = repr((resources.parameters(run.config), site.modules, site.max_parallel, run.after))
        alike.setdefault(key, []).append(run)
    return [
        group[start : start + largest] for group in alike.values() for start in range(0, len(group), largest)
    ]


def batch(
    launch: Launch, runs: Sequence[PlannedRun], code: Path, dependency: str = ""
) -> tuple[ArrayExecutor, str]:
    """The executor with its options, and the command of a task."""
    config = runs[0].config
    options = resources.parameters(config)
    executor = ArrayExecutor(launch.directory)
    executor.update_parameters(
        job_name=launch.directory.name,
        time=None,  # the site's, or among the others
        wckey=None,
        dependency=f"afterany:{dependency}" if dependency else None,
        array_parallelism=config.cluster.max_parallel or len(runs),
        stderr_to_stdout=True,
        # A rank that fails ends all, and each rank gets the cores that sbatch was asked for.
        srun_args=[
            "--kill-on-bad-exit=1",
            "--open-mode=append",
            f"--cpus-per-task={options['cpus-per-task']}",
        ],
        setup=[
            *(f"module load {name}" for name in config.cluster.modules),
            f"export PYTHON={shlex.quote(sys.executable)}",
            f"cd {shlex.quote(str(code))}",
        ],
        additional_parameters=options,
    )
    return executor, f"sh {RANK} -m pipeline.launching.slurm.job {shlex.quote(str(launch.directory))}"


def check_path(path: Path) -> None:
    if not PATH.fullmatch(str(path)):
        raise UserError(
            f"{str(path)!r} cannot be handed to Slurm; rename it: no control characters, quotes, %, $ or \\"
        )


def _give(launch: Launch, runs: Sequence[PlannedRun], code: Path, dependency: str) -> None:
    """Call sbatch; after any failure the launch's name shows whether there is a job."""
    for run in runs:
        write_config(run.config, run.id)
    executor, command = batch(launch, runs, code, dependency)
    try:
        launch.settle(executor.submit_tasks(command, len(runs)))
    except WorkFailed:
        if not launches.adopt(launch.directory.parents[1]):
            raise
