"""Attempts at a run: one process group at a time, and how each of them began and ended.

One has a line in attempts.jsonl when it begins its first step, and one when it ends. Without the second,
where nobody holds the lease of the run, it was killed: it had no time to write that.
"""

import dataclasses
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.run import RunConfig
from pipeline.config.typed import build
from pipeline.errors import UserError, WorkFailed
from pipeline.files import LockedElsewhere, append_row, locked, locked_by, publish_bytes, rows
from pipeline.processes.place import Place
from pipeline.runs.directory import ATTEMPTS, LEASE, LOG, RUN, WEIGHTS
from pipeline.runs.log import error_line
from tnt.untrusted.reading import BadFile, json_of, read_json
from tnt.untrusted.writing import out_of_memory

if TYPE_CHECKING:
    from pipeline.processes.ranks import Ranks

FRUITLESS = 3  # attempts in a row without a new checkpoint: another would bring none either
REQUEUING = ("SIGUSR1", "SIGUSR2")  # what schedulers send first; SIGTERM: a preemption, or somebody cancelled
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
MEMORY, INPUT = "memory", "input"  # causes of a failure: it ran out of memory; a setting or a file is wrong
AGAIN = 75  # status of a process whose run is to be continued by its job's next start
KILLED = "it ended without a word: killed, or out of memory"
UNKNOWN = "an older version of the code, which did not note how it ended, trained it last; see its log"


@dataclass(frozen=True)
class Lease:
    """Who holds a run."""

    pid: int = 0  # 0 where that is not known
    host: str = ""
    job: str = ""  # the scheduler's name for it

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        return f"process {self.pid} on {self.host}{f', job {self.job}' if self.job else ''}"


@dataclass(frozen=True)
class Attempt:
    step: int  # where it began
    time: float
    world: int
    hosts: tuple[str, ...]
    job: str = ""
    restarts: int = 0
    number: int = 0  # from 1 on; 0 where an older version of the code noted it
    job_name: str = ""  # a scheduler that lost its state gives the same numbers to others
    cluster: str = ""
    device: str = ""  # its kind
    micro_batch: int = 0  # views that a rank holds at most; 0 where an older version of the code noted it


@dataclass(frozen=True)
class Ending:
    """How an attempt ended; one that failed before its first step has this line alone."""

    number: int
    end: str  # FINISHED, STOPPED or FAILED
    step: int  # the last one that it finished
    time: float
    reason: str = ""  # of the failure, or the name of the signal
    preempted: bool = False  # for another job of the scheduler's
    cause: str = ""  # of the failure: MEMORY, INPUT, or what the reason says
    micro_batch: int = 0  # views that a rank held at most, where it ran out of memory

    @property
    def again(self) -> bool:
        """Whether its job was to be started again after it."""
        return self.end == STOPPED and (self.preempted or self.reason in REQUEUING)

    def __str__(self) -> str:
        if self.end == STOPPED:
            how = "preempted" if self.preempted else f"ended by {self.reason}"
            return f"{how} after step {self.step:,}"
        return self.reason if self.end == FAILED else f"finished at step {self.step:,}"


class AttemptLog:
    """Writes the lines of one attempt; `step` is kept up to date by whoever trains."""

    def __init__(self, directory: Path, number: int, micro_batch: int = 0) -> None:
        self._path, self.number, self.step = directory / ATTEMPTS, number, 0
        self._micro_batch = micro_batch

    def fitted(self, config: RunConfig, ranks: "Ranks") -> RunConfig:
        """With half the micro-batch with which an earlier attempt ran out of memory, if there was one."""
        sizes = [end.micro_batch for end in failures(self._path.parent) if end.micro_batch]
        limit = ranks.share(min(sizes) // 2 if sizes else 1 << 30)
        share = config.recipe.global_batch // ranks.world
        self._micro_batch = max(1, min(config.engine.micro_batch, share, limit))
        if limit >= min(config.engine.micro_batch, share):
            return config
        measured = min(config.engine.evaluation_batch, limit)
        engine = dataclasses.replace(config.engine, micro_batch=self._micro_batch, evaluation_batch=measured)
        return dataclasses.replace(config, engine=engine)

    def begin(self, world: int, hosts: tuple[str, ...], place: Place, device: str = "") -> list[str]:
        """What is to be said of where it begins."""
        attempt = Attempt(self.step, now(), world, hosts, place.job, place.restarts, self.number)
        where = {"job_name": place.job_name, "cluster": place.cluster, "device": device}
        before = len(_moves(self._path.parent))
        append_row(self._path, asdict(attempt) | where | {"micro_batch": self._micro_batch})
        return _moves(self._path.parent)[before:]

    def end(self, end: str, reason: str = "", preempted: bool = False) -> None:
        append_row(self._path, asdict(Ending(self.number, end, self.step, now(), reason, preempted)))

    def fail(self, reason: str, error: Exception | None = None) -> None:
        """Any rank may say what it died of, in the log too."""
        line, cause = " ".join(reason.split()), cause_of(error)
        about = {"cause": cause, "micro_batch": self._micro_batch if cause == MEMORY else 0}
        append_row(self._path, asdict(Ending(self.number, FAILED, self.step, now(), line)) | about)
        error_line(self._path.parent, line)


def cause_of(error: Exception | None) -> str:
    if out_of_memory(error):
        return MEMORY
    return INPUT if isinstance(error, UserError) and not isinstance(error, WorkFailed) else ""


class HeldByEarlierStart(WorkFailed):
    """Slurm has lost sight of a node and started the job elsewhere, while its ranks live on there."""


@contextmanager
def lease(directory: Path, job: str = "") -> Iterator[None]:
    """Hold the run; refused, with the name of the holder, where another process does."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(locked(directory / LEASE))
        except LockedElsewhere:
            other = holder(directory) or Lease()
            refused = HeldByEarlierStart if job and job == other.job else WorkFailed
            raise refused(
                f"run {directory.name} is being trained by {other}; it can be watched in {directory / LOG}"
            ) from None
        file.truncate(0)
        file.write(json.dumps(asdict(Lease(os.getpid(), socket.gethostname(), job))) + "\n")
        file.flush()
        yield


def holder(directory: Path) -> Lease | None:
    """Who holds the run. Asking takes no lock, and drops none of this process."""
    said = locked_by(directory / LEASE)
    if said is None:
        return None
    try:
        return build(Lease, json_of(said, "lease"), "lease")
    except ValueError:  # it is being written, or an older version wrote it
        return Lease()


def register(directory: Path, science: str, data: dict[str, str]) -> None:
    """Note a run's science and data when it first starts.

    Refused where an unfinished run of the same science has other data under the same path: the data were
    changed, and this run would begin again from zero.
    """
    path = directory / RUN
    if path.exists():
        return
    for other in directory.parent.glob(f"*/{RUN}"):
        try:
            begun = read_json(other, {"science": str, "data": {str: str}})
        except (OSError, BadFile):
            continue
        theirs = begun["data"]
        unfinished = not (other.parent / WEIGHTS).exists()
        if begun["science"] == science and theirs.get("root") == data["root"] and unfinished:
            differing = [name for name in data if theirs.get(name) != data[name]]
            changes = "; ".join(f"{name}: {theirs.get(name)} → {data[name]}" for name in differing)
            raise UserError(
                f"the data changed since run {other.parent.name} of the same config began ({changes}). "
                f"Put them back to go on with it, or remove {other.parent} to begin anew"
            )
    publish_bytes(path, (json.dumps({"science": science, "data": data}, indent=1) + "\n").encode())


def next_number(directory: Path) -> int:
    """The number of the next attempt."""
    found = _noted(directory)
    return 1 + max([line.number for line in found] + [sum(isinstance(line, Attempt) for line in found)])


def attempts(directory: Path) -> list[Attempt]:
    """Those that began their first step, oldest first."""
    return [line for line in _noted(directory) if isinstance(line, Attempt)]


def last_end(directory: Path, first: int = 0) -> str:
    """How the newest attempt ended, of those from a number on, in words; "" where there is none."""
    if end := ending(directory, first):
        return str(end)
    numbers = [line.number for line in _noted(directory) if line.number >= first]
    return "" if not numbers else KILLED if any(numbers) else UNKNOWN


def ending(directory: Path, first: int = 0) -> Ending | None:
    """The end of the newest attempt; None where it goes on, or was killed.

    Several ranks may have failed, one because of the other: the first that said so counts. A run that was
    stopped may have failed to be queued again.
    """
    found = [line for line in _noted(directory) if line.number >= first]
    newest = max((line.number for line in found), default=0)
    return _ending_of(newest, found)


def failures(directory: Path) -> list[Ending]:
    """Those of all attempts that failed, oldest first."""
    found = _noted(directory)
    ends = (_ending_of(number, found) for number in sorted({line.number for line in found}))
    return [end for end in ends if end and end.end == FAILED]


def remarks(directory: Path) -> list[str]:
    """What was put right after failures: for the record."""
    short = {end.micro_batch: end for end in failures(directory) if end.micro_batch}
    said = [f"step {end.step}: out of memory with a micro-batch of {size}" for size, end in short.items()]
    return said + _moves(directory)


def _moves(directory: Path) -> list[str]:
    """Starts on another kind of device than the one before."""
    known = [attempt for attempt in attempts(directory) if attempt.device]
    return [
        f"from step {now.step} on {now.device}, before on {before.device}"
        for before, now in itertools.pairwise(known)
        if now.device != before.device
    ]


def _ending_of(number: int, lines: Sequence["Attempt | Ending"]) -> Ending | None:
    ends = [line for line in lines if isinstance(line, Ending) and line.number == number]
    first = next((end for end in ends if end.cause == MEMORY), None)  # another rank missed that one sooner
    return first or next((end for end in ends if end.end == FAILED), ends[0] if ends else None)


def fruitless(directory: Path, step: int) -> bool:
    """Whether the last attempts, with this one, all began at the step that this one has reached.

    One that was preempted may have had no time for a step.
    """
    taken = {line.number for line in _noted(directory) if isinstance(line, Ending) and line.preempted}
    last = [attempt for attempt in attempts(directory) if attempt.number not in taken][-FRUITLESS:]
    return len(last) == FRUITLESS and all(attempt.step == step for attempt in last)


def now() -> float:
    return round(time.time(), 3)


def _noted(directory: Path) -> list[Attempt | Ending]:
    """All lines in their order; damaged lines are left out."""
    found: list[Attempt | Ending] = []
    for row in rows(directory / ATTEMPTS):
        try:
            found.append(build(Ending, row, "") if "end" in row else build(Attempt, row, ""))
        except UserError:
            continue
    return found
