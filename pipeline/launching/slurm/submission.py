"""Submits runs to Slurm as array jobs, each run once, however often and from wherever it is asked.

submitit writes the batch script and calls sbatch (`arrays.py`). A task finds its run by its number in the
array (`launches.py`), continues from what is in the run's directory, and ends as any run does.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, WorkFailed
from pipeline.launching import snapshot
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import commands, launches, nodes, notices, preflight, queue, resources
from pipeline.launching.slurm.launches import Launch
from pipeline.launching.slurm.queue import Queue
from pipeline.runs import attempts
from pipeline.runs.directory import write_config
from tnt.own.files import find, is_own
from tnt.untrusted.reading import MOST_OPTION, whole_number

# Paths go into lines of the batch script, where % and \\ have a meaning for Slurm.
PATH = re.compile(r"[^\x00-\x1f\x7f%\\'\"`$]+")
LIMIT = re.compile(r"submit limit|MaxSubmitJob", re.I)  # of jobs that a user may have in the queue


@dataclass(frozen=True)
class Submitted:
    id: str
    job: str  # "" where a process outside of Slurm trains it
    new: bool  # False where another launch has submitted it, or a batch script trains it


def submit(
    runs: Sequence[PlannedRun],
    earlier: Queue | None = None,
    *,
    calibration: float = 0.0,
    starts: int = 0,
    notify: str = "",
    behind: str = "",
) -> list[Submitted]:
    """Submit the runs that are neither finished nor in the queue; the jobs of all unfinished runs.

    `earlier`: what Slurm said a moment ago; `calibration`: for how many seconds they train to be measured,
    0 to their ends; `starts`: how often their jobs may start, 0 without a bound; `notify`: whom to tell;
    `behind`: a job of theirs, the caller's, that is about to end.
    """
    if not runs:
        return []
    directory, ids = Path(runs[0].config.paths.runs).absolute(), [run.id for run in runs]
    for path in (directory, Path(sys.executable)):
        check_path(path)
    if notify:
        notices.check(notify)
    with launches.submitting(directory):
        listed = queue.look(directory, earlier).listed
        for line in queue.adopt(directory, listed):
            print(line, file=sys.stderr)
        known = queue.jobs(directory, ids, listed)
        ending = {id: job.id for id, job in known.items() if job.ending or job.id == behind}
        at_work = {id: job.id for id, job in known.items() if job.live and id not in ending}
        for id in ids:
            holder = attempts.holder(directory / id)
            if id not in at_work and holder and holder.job != ending.get(id):
                at_work[id] = ""
        missing = [run for run in runs if run.id not in at_work and not run.record.is_file()]
        jobs = dict(at_work)
        if missing:
            settings = preflight.check(missing)
            largest = whole_number(settings.get("MaxArraySize", "1001"), 0, MOST_OPTION, "MaxArraySize")
            about = {"cluster": settings["ClusterName"], "calibration": calibration, "starts": starts}
            for line in nodes.said(directory):
                print(line, file=sys.stderr)
            _submit(directory, groups(missing, largest), about, ending, jobs, notify)
    return [Submitted(id, jobs[id], id not in at_work) for id in ids if id in jobs]


def _submit(
    directory: Path,
    waiting: list[list[PlannedRun]],
    about: Mapping[str, Any],
    ending: Mapping[str, str],
    jobs: dict[str, str],
    notify: str,
) -> None:
    """Give each group to Slurm, behind the jobs on which it waits, and add its runs' to `jobs`."""
    names = {run.config.model.name for group in waiting for run in group}
    code, new = snapshot.take(directory, own=[find(name) for name in sorted(names) if is_own(name)]), 0
    while waiting:
        group = on_one_kind(waiting.pop(0), directory)
        launch = Launch.begin(
            directory,
            [run.id for run in group],
            title=title(group),
            code=code.name,
            pack=group[0].config.cluster.pack,
            partition=group[0].config.cluster.partition,
            **about,
        )
        if notify:
            notices.keep(launch, notify)
        first = [jobs.get(group[0].after, ""), *(ending.get(run.id, "") for run in group)]
        try:
            _give(launch, group, code, list(filter(None, first)))
        except UserError as error:
            if LIMIT.search(str(error)) and len(group) > 1:  # fewer may fit
                half = len(group) // 2
                waiting[:0] = [group[:half], group[half:]]
                continue
            if not new:
                raise
            left = len(group) + sum(map(len, waiting))
            raise WorkFailed(
                f"{error}; {new} runs were submitted before, {left} were not: the same launch goes on there"
            ) from error
        new += len(group)
        jobs |= {run.id: launch.task(run.id) for run in group}


def on_one_kind(runs: list[PlannedRun], directory: Path) -> list[PlannedRun]:
    """Runs of a table in one of their partitions, as those of earlier launches: their GPUs may differ."""
    site = runs[0].config.cluster
    if site.mixed or "," not in site.partition:
        return runs
    names, table = site.partition.strip("[]").split(","), f"{title(runs)}-"
    earlier = [one for one in launches.read_all(directory) if one.directory.name.startswith(table)]
    chosen = next((one.partition for one in reversed(earlier) if one.partition in names), "")
    why = "as earlier runs of the table"
    if not chosen:
        starts = {name: preflight.expected_start(runs[0].config, name) for name in names}
        chosen = min(names, key=lambda name: (not starts[name], starts[name]))
        why = "where they would start first"
    print(f"partition {chosen}, {why}; cluster.mixed=true lets runs of a table use several", file=sys.stderr)
    site = replace(site, partition=chosen)
    return [replace(run, config=replace(run.config, cluster=site)) for run in runs]


def cancel(runs: Path, ids: Sequence[str], earlier: Queue | None = None) -> list[str]:
    """Cancel the jobs of these runs; returns those jobs."""
    runs = runs.absolute()
    with launches.submitting(runs):
        listed = queue.look(runs, earlier).listed
        queue.adopt(runs, listed)
        jobs = [job.id for job in queue.jobs(runs, ids, listed).values() if job.live and not job.ending]
        commands.cancel(jobs)
    return jobs


def title(runs: Sequence[PlannedRun]) -> str:
    """What squeue shows of a job first."""
    tables = {label.partition("/")[0] for run in runs for label in run.labels}
    return tables.pop() if len(tables) == 1 else "tnt"


def groups(runs: Sequence[PlannedRun], largest: int) -> list[list[PlannedRun]]:
    """Runs for one array each: with the same resources, and starting from the same run or from none."""
    alike: dict[str, list[PlannedRun]] = {}
    for run in runs:
        site = run.config.cluster
        key = repr((resources.parameters(run.config), site.modules, site.max_parallel, site.pack, run.after))
        alike.setdefault(key, []).append(run)
    return [
        group[start : start + most]
        for group in alike.values()
        if (most := largest * group[0].config.cluster.pack)
        for start in range(0, len(group), most)
    ]


def check_path(path: Path) -> None:
    if not PATH.fullmatch(str(path)):
        raise UserError(
            f"{str(path)!r} cannot be handed to Slurm; rename it: no control characters, quotes, %, $ or \\"
        )


def _give(launch: Launch, runs: Sequence[PlannedRun], code: Path, first: Sequence[str]) -> None:
    """Call sbatch; after any failure the launch's name shows whether there is a job."""
    from pipeline.launching.slurm import arrays  # submitit takes its time

    for run in runs:
        write_config(run.config, run.id)
    executor, command = arrays.batch(launch, runs, code, first)
    try:
        launch.settle(executor.submit_tasks(command, -(-len(runs) // launch.pack)))
    except WorkFailed as error:
        if not queue.adopt(launch.directory.parents[1], commands.jobs()):
            raise UserError(preflight.with_cure(str(error))) from error
