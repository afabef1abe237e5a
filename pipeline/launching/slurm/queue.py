"""What Slurm says of the jobs of runs.

Of each run its job is known, from its launch or from an attempt at it. An id without its name is not
believed: a controller that lost its state counts from 1 again, and another cluster has the same numbers. For
a launch without a job, a job of its name is looked for, so that nothing is submitted twice after a submitter
was killed in between, or sbatch submitted but could not answer.
"""

import contextlib
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.config.overrides import compose
from pipeline.errors import UserError, WorkFailed
from pipeline.files import publish_bytes
from pipeline.launching.plan import PlannedRun, RequestedRun, planned
from pipeline.launching.slurm import commands, launches
from pipeline.launching.slurm.commands import Job, NoCluster
from pipeline.processes import accounting
from pipeline.runs.attempts import attempts
from tnt.untrusted.reading import read_text

LISTING = "queue.txt"  # among the launches: what Slurm said last
# Jobs of the batch files in slurm/: the file and the words, and with which words each file trains.
COMMAND = re.compile(r"(/.*/slurm/[a-z_]+\.sh)( .*|)")
WORDS = re.compile(r'^sh \S+/rank\.sh .* pipeline/train\.py \\\n *(.*)"\$@"$', re.M)


@dataclass(frozen=True)
class Queue:
    """What Slurm said, and which launches with which jobs were noted before it was asked."""

    noted: dict[str, str | None]
    listed: dict[str, Job]


@dataclass(frozen=True)
class Outlook:
    """Slurm as whoever launches some runs sees it."""

    used: bool  # the runs are, or would be, its jobs
    queue: Queue | None  # None where there is none, or it does not answer
    jobs: dict[str, Job] | None  # by run; None where it does not answer


def look(runs: Path, earlier: Queue | None = None, age: float = 0.0) -> Queue:
    """Ask Slurm; or take what it said `earlier`, if nobody has submitted since; or what it said to another
    process of this user within the last seconds, where those are as good."""
    noted = {launch.directory.name: launch.job for launch in launches.read_all(runs)}
    if earlier and earlier.noted == noted and None not in noted.values():
        return earlier
    kept = runs / launches.FOLDER / LISTING
    if age and kept.exists() and 0 <= time.time() - kept.stat().st_mtime < age:  # the clock may be set back
        return Queue(noted, commands.jobs(read_text(kept)))
    lines = commands.listing()
    with contextlib.suppress(OSError):  # a disk that is full or read-only: others have to ask for themselves
        publish_bytes(kept, lines.encode())
    return Queue(noted, commands.jobs(lines))


def outlook(runs: Sequence[PlannedRun], needed: bool = False, age: float = 0.0) -> Outlook:
    """`needed`: no answer is an error, unless the runs are this machine's own; `age`: as `look` has it."""
    config = runs[0].config
    directory, wanted = Path(config.paths.runs), config.cluster.name
    try:
        queue = look(directory, age=age)
    except NoCluster:
        return Outlook(wanted == "slurm", None, {})
    except WorkFailed as error:
        if needed and wanted != "local":
            raise
        print(f"warning: {error}", file=sys.stderr)
        return Outlook(wanted != "local", None, None)
    return Outlook(
        wanted != "local", queue, jobs(directory, [run.id for run in runs if run.id], queue.listed)
    )


def adopt(runs: Path, listed: Mapping[str, Job]) -> list[str]:
    """Find and note the jobs of launches whose submitter was killed before; a line for each.

    `listed`: what Slurm said after the last submission had begun.
    """
    said = []
    for launch in launches.read_all(runs):
        if launch.job is None:
            name = launch.directory.name
            arrays = sorted({id.partition("_")[0] for id, job in listed.items() if job.name == name}, key=int)
            if job := launch.settle(arrays[0] if arrays else launches.LOST):
                said.append(f"job {job} was submitted as {name} but not noted; it is now")
    return said


def jobs(runs: Path, ids: Iterable[str], listed: Mapping[str, Job]) -> dict[str, Job]:
    """The job of each run, of launches and of batch scripts: the live one, else the newest known.

    Those that have begun are looked for in the accounting: what they used, and how they ended.
    """
    known = {
        id: {(one.job, one.job_name, one.cluster) for one in attempts(runs / id) if one.job_name}
        for id in ids
    }
    for launch in launches.read_all(runs):
        for id in known.keys() & set(launch.runs) if launch.job else ():
            known[id].add((launch.task(id), launch.directory.name, launch.cluster))
    for job in listed.values():
        if job.live and (id := run_of(job, runs)) in known:
            known[id].add((job.id, job.name, job.cluster))
    begun = {
        job for noted in known.values() for job, *_ in noted if job not in listed or not listed[job].waiting
    }
    used = accounting.ask(begun, commands.PATIENCE)
    states = {id: Job(id, one.state, one.reason, one.name, one.cluster) for id, one in used.items()}
    states |= listed
    chosen = {}
    for id, noted in known.items():
        found = [
            one
            for job, name, cluster in noted
            if (one := states.get(job)) and one.name == name and cluster in ("", one.cluster)
        ]
        if found:  # Slurm numbers its jobs in their order
            mine = tuple(used[one.id] for one in found if one.id in used)
            chosen[id] = replace(max(found, key=_newest), used=mine)
    return chosen


def _newest(job: Job) -> tuple[bool, list[str]]:
    return job.live, [part.zfill(10) for part in job.id.split("_")]


def run_of(job: Job, runs: Path) -> str:
    """The id of the run of this directory that a batch file's job is to train, also before it has begun."""
    command = COMMAND.fullmatch(job.command)
    try:
        words = WORDS.search(read_text(Path(command[1]))) if command else None
        if not command or not words:
            return ""
        config = compose([*words[1].split(), *command[2].split()])
    except (OSError, UserError):  # another repository's, or of words that its start will refuse
        return ""
    [run] = planned([RequestedRun(config)], making=False)
    return run.id if Path(config.paths.runs).absolute() == runs.absolute() else ""
