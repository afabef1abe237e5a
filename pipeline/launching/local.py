"""Trains runs on this machine, several at a time, each in a process of its own (or one for each GPU).

A run that another process trains is not started but waited for; a run that others start from comes before
them. After a kill the same call continues each from its last checkpoint. A failed one does not stop others.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from pipeline.config.run import RunConfig
from pipeline.errors import UserError
from pipeline.files import PACKAGE, umask_for
from pipeline.launching.plan import PlannedRun
from pipeline.processes import scheduler
from pipeline.processes.device import cores, gpus
from pipeline.runs import attempts, records
from pipeline.runs.directory import OUTPUT, write_config
from pipeline.runs.log import printed_error

PROGRAM = PACKAGE / "train.py"
LOOK_EVERY = 0.2  # seconds between two looks at the processes
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class LocalRuns:
    """The state of the runs, by id."""

    active: dict[str, "RunProcess"] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)  # trained by processes of others
    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)  # why
    stopping: bool = False  # we were asked to end


@dataclass(frozen=True)
class RunProcess:
    process: subprocess.Popen[bytes]
    slot: int
    attempt: int  # its number, or that of a later one of the run

    def send(self, number: signal.Signals) -> None:
        """Signal all processes of the run."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)


@dataclass(frozen=True)
class Capacity:
    """How many runs train at the same time, and on which GPUs each."""

    slots: int
    gpus: tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them; none: on the CPU
    ranks: int  # processes of a run

    def environment(self, slot: int) -> dict[str, str]:
        mine = self.gpus[slot * self.ranks : (slot + 1) * self.ranks]
        return {"CUDA_VISIBLE_DEVICES": ",".join(mine)} if mine else {}


def capacity(config: RunConfig) -> Capacity:
    """As many runs as there are cores for their threads, or GPUs, unless cluster.jobs says."""
    count = 0 if config.engine.device == "cpu" else len(gpus())
    ranks, jobs = config.cluster.gpus or 1, config.cluster.jobs
    if count:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = [part.strip() for part in visible.split(",")] if visible else [str(i) for i in range(count)]
        fitting = count // ranks
        if not fitting or jobs > fitting:
            raise UserError(
                f"cluster.jobs={jobs or 1} runs of cluster.gpus={ranks} each need {max(jobs, 1) * ranks} "
                f"GPUs; {count} are here"
            )
        return Capacity(jobs or fitting, tuple(names[:count]), ranks)
    threads = (config.engine.threads or cores()) * ranks
    return Capacity(jobs or max(1, cores() // threads), (), ranks)


def train(
    runs: Sequence[PlannedRun], tell: Callable[[str], None], show: Callable[[LocalRuns], None]
) -> LocalRuns:
    """Train what is not done. `tell` gets a line for each event; `show` is called a few times a second."""
    work, space = LocalRuns(), capacity(runs[0].config)
    waiting = list(runs)
    with _requests_passed_on(work):
        while work.active or (waiting and not work.stopping):
            waiting = [run for run in waiting if not _settled(run, work, tell)]
            for run in waiting if not work.stopping else ():
                if len(work.active) < space.slots and run.id not in work.elsewhere and _ready(run):
                    slot = min(set(range(space.slots)) - {child.slot for child in work.active.values()})
                    work.active[run.id] = child = start(run, space, slot)
                    if work.stopping:  # asked in this moment
                        child.send(signal.SIGTERM)
                    tell(f"{name(run)} starts; {run.directory / OUTPUT} has what it prints")
            waiting = [run for run in waiting if run.id not in work.active]
            waiting += _collect(runs, work, tell)
            show(work)
            time.sleep(LOOK_EVERY)
    return work


def name(run: PlannedRun) -> str:
    """A run's name in messages: the first of its cells, or its model and data, and its id."""
    label = run.labels[0] if run.labels else f"{run.config.model.name} on {run.config.data.name}"
    seed = f" seed {run.config.seed}" if run.config.seed else ""
    return f"{label}{seed} ({run.id})"


def ask_to_end(directory: Path) -> str:
    """Send SIGTERM to the process of this host that trains the run, outside of a job; who that was, or ""."""
    holder = attempts.holder(directory)
    if holder is None or not holder.pid or holder.job or holder.host != socket.gethostname():
        return ""
    try:
        os.kill(holder.pid, signal.SIGTERM)
    except ProcessLookupError:
        return ""
    return str(holder)


def start(
    run: PlannedRun,
    space: Capacity,
    slot: int,
    program: Sequence[str] = (str(PROGRAM),),
    environ: Mapping[str, str] | None = None,
) -> RunProcess:
    """Start its process in a new session: Ctrl-C at the terminal does not reach it, and is passed on."""
    path = write_config(run.config, run.id)
    command = [sys.executable, "-u"]
    if space.ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={space.ranks}"]
    command += [*program, "--config", str(path)]
    # Inside of a job it is no part of that: to cancel the run must not end a session on a node.
    env = {**scheduler.environment(), **space.environment(slot), **(environ or {})}
    attempt, mode = attempts.next_number(path.parent), 0o666 & ~umask_for(path.parent.parent)
    with open(path.parent / OUTPUT, "ab", opener=lambda name, flags: os.open(name, flags, mode)) as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            start_new_session=True,
        )
    return RunProcess(process, slot, attempt)


def _settled(run: PlannedRun, work: LocalRuns, tell: Callable[[str], None]) -> bool:
    """Whether a waiting run is done or can never start; a process elsewhere that trains it is noted."""
    if run.record.is_file():
        work.elsewhere.discard(run.id)
        work.done.add(run.id)
        return True
    if run.after in work.failed:
        work.failed[run.id] = f"waits for run {run.after}, which has failed"
        return True
    holder = attempts.holder(run.directory)
    if holder and run.id not in work.elsewhere:
        tell(f"{name(run)} is being trained by {holder}; waiting for that process")
        work.elsewhere.add(run.id)
    elif not holder and run.id in work.elsewhere:
        tell(f"{name(run)} was not finished there; it continues here")
        work.elsewhere.remove(run.id)
    return False


def _ready(run: PlannedRun) -> bool:
    return not run.after or records.exists(run.config.paths.records, run.after)


def _collect(runs: Sequence[PlannedRun], work: LocalRuns, tell: Callable[[str], None]) -> list[PlannedRun]:
    """Note which processes have ended; returns the runs to go on with: another launch has them, or we end."""
    again = []
    for run in runs:
        if run.id not in work.active or (status := work.active[run.id].process.poll()) is None:
            continue
        attempt = work.active.pop(run.id).attempt
        if run.record.is_file():
            work.done.add(run.id)
            record = records.read(run.record)
            tell(f"{name(run)} is done: top-1 {record.best.top1:.2f} %")
        elif work.stopping or attempts.holder(run.directory):
            again.append(run)
        else:
            work.failed[run.id] = _why(status, run.directory, attempt)
            tell(f"{name(run)} failed: {work.failed[run.id]}")
    return again


def _why(status: int, directory: Path, attempt: int) -> str:
    said = attempts.last_end(directory, attempt) or printed_error(directory)
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    if status == 0:
        return f"{said or 'ended early'}; launched again, it goes on"
    return said or f"status {status}; see {directory / OUTPUT}"


@contextmanager
def _requests_passed_on(work: LocalRuns) -> Iterator[None]:
    """Pass Ctrl-C or a request to end to the runs, which write a checkpoint and end; a second one kills."""

    def handle(number: int, frame: FrameType | None) -> None:
        for child in work.active.values():
            child.send(signal.SIGKILL if work.stopping else signal.SIGTERM)
        work.stopping = True

    before = {number: signal.signal(number, handle) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for child in work.active.values():  # after an error here, no run continues unseen
            child.send(signal.SIGTERM)
