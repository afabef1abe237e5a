"""Trains runs on this machine, several at a time, each in a process of its own (or one for each GPU).

A run that another process trains is not started but waited for; a run that others start from comes before
them. After a kill the same call continues every run from its last checkpoint. A failed run does not stop the
others.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.config.run import RunConfig
from pipeline.errors import UserError
from pipeline.files import PACKAGE
from pipeline.launching.plan import PlannedRun
from pipeline.processes.device import cores, gpus
from pipeline.runs import attempts, records
from pipeline.runs.attempts import Lease
from pipeline.runs.directory import OUTPUT, run_directory, write_config
from pipeline.runs.log import printed_error

TRAIN = PACKAGE / "train.py"
LOOK_EVERY = 0.2  # seconds between two looks at the processes
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class LocalRuns:
    """The state of each run, by id."""

    active: dict[str, "RunProcess"] = field(default_factory=dict)
    elsewhere: dict[str, Lease] = field(default_factory=dict)  # who holds it
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # why
    left: list[str] = field(default_factory=list)  # not begun or not finished, as we were asked to end


@dataclass
class RunProcess:
    process: subprocess.Popen[bytes]
    slot: int
    started: float
    asked: bool = False  # to end


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
    with _Stop(work) as stop:
        while waiting or work.active:
            waiting = [run for run in waiting if not _settled(run, work, tell)]
            for run in waiting if not stop.asked else ():
                if len(work.active) < space.slots and run.id not in work.elsewhere and _ready(run, work):
                    work.active[run.id] = _start(run, space, _free(work, space))
                    tell(
                        f"{name(run)} starts; {run_directory(run.config, run.id) / OUTPUT} has what it prints"
                    )
            waiting = [run for run in waiting if run.id not in work.active]
            waiting += _collect(runs, work, stop.asked, tell)
            if stop.asked and not work.active:
                work.left += [run.id for run in waiting]
                return work
            stop.pass_on()
            show(work)
            stop.wait(LOOK_EVERY)
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


def _settled(run: PlannedRun, work: LocalRuns, tell: Callable[[str], None]) -> bool:
    """Whether a waiting run is done or can never start; a process elsewhere that trains it is noted."""
    if records.exists(run.config.paths.records, run.id):
        work.elsewhere.pop(run.id, None)
        work.done.append(run.id)
        return True
    if run.after in work.failed:
        work.failed[run.id] = f"waits for run {run.after}, which has failed"
        return True
    holder = attempts.holder(run_directory(run.config, run.id))
    if holder and run.id not in work.elsewhere:
        tell(f"{name(run)} is being trained by {holder}; waiting for that process")
    if holder:
        work.elsewhere[run.id] = holder
    elif work.elsewhere.pop(run.id, None):
        tell(f"{name(run)} was not finished there; it continues here")
    return False


def _ready(run: PlannedRun, work: LocalRuns) -> bool:
    return not run.after or records.exists(run.config.paths.records, run.after)


def _free(work: LocalRuns, space: Capacity) -> int:
    return min(set(range(space.slots)) - {child.slot for child in work.active.values()})


def _start(run: PlannedRun, space: Capacity, slot: int) -> RunProcess:
    """Start its process in a new session: Ctrl-C at the terminal does not reach it, `_Stop` passes it on."""
    path = write_config(run.config, run.id)
    command = [sys.executable, "-u"]
    if space.ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={space.ranks}"]
    command += [str(TRAIN), "--config", str(path)]
    output = os.open(path.parent / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    started = attempts.now()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **space.environment(slot)},
            start_new_session=True,
        )
    finally:
        os.close(output)
    return RunProcess(process, slot, started)


def _collect(
    runs: Sequence[PlannedRun], work: LocalRuns, stopping: bool, tell: Callable[[str], None]
) -> list[PlannedRun]:
    """Note which processes have ended; returns the runs that another launch has started first."""
    again = []
    for run in [run for run in runs if run.id in work.active]:
        status = work.active[run.id].process.poll()
        if status is None:
            continue
        started = work.active.pop(run.id).started
        directory = run_directory(run.config, run.id)
        if records.exists(run.config.paths.records, run.id):
            work.done.append(run.id)
            record = records.read(records.record_path(run.config.paths.records, run.id))
            tell(f"{name(run)} is done: top-1 {record.best.top1:.2f} %")
        elif attempts.holder(directory):
            again.append(run)  # another launch came first
        elif stopping:
            work.left.append(run.id)
        else:
            work.failed[run.id] = _why(status, directory, started)
            tell(f"{name(run)} failed: {work.failed[run.id]}")
    return again


def _why(status: int, directory: Path, started: float) -> str:
    said = attempts.last_end(directory, started) or printed_error(directory)
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    if status == 0:
        return f"{said or 'ended early'}; launched again, it goes on"
    return said or f"status {status}; see {directory / OUTPUT}"


class _Stop:
    """Passes Ctrl-C or a request to end to the runs, which write a checkpoint and end; a second one kills."""

    def __init__(self, work: LocalRuns) -> None:
        self._work, self._event = work, threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    @property
    def asked(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """Returns early at the first signal."""
        if self.asked:
            time.sleep(seconds)
        else:
            self._event.wait(seconds)

    def __enter__(self) -> "_Stop":
        for number in ENDING:
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for child in self._work.active.values():  # after an error here, no run continues unseen
            _send(child, signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            for child in self._work.active.values():
                _send(child, signal.SIGKILL)
        self._event.set()
        self.pass_on()

    def pass_on(self) -> None:
        """Ask each run once, also one that was just starting when the signal came."""
        for child in self._work.active.values() if self.asked else ():
            if not child.asked:
                child.asked = True
                _send(child, signal.SIGTERM)


def _send(child: RunProcess, number: signal.Signals) -> None:
    """Signal all processes of a run."""
    if child.process.poll() is None:
        os.killpg(child.process.pid, number)
