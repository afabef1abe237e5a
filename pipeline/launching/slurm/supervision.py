"""What a batch script starts on a job's first node: it runs the ranks, and again where that may help.

    sh pipeline/launching/slurm/rank.sh -m pipeline.launching.slurm.supervision pipeline/train.py model=tnt_s

An end without success costs a place in the queue only where the same allocation cannot go on. A failure that
repeats is not tried again, and a node that fails twice is left out. The ranks leave it to this process to
have the job queued again: in a container, or beside other runs of one job, they could not.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from pipeline.config.overrides import from_command_line
from pipeline.errors import WorkFailed, command
from pipeline.files import whole_lines
from pipeline.launching import local
from pipeline.launching.plan import PlannedRun, RequestedRun, planned
from pipeline.launching.slurm import containers, nodes, resources, submission
from pipeline.processes import node_check
from pipeline.processes.place import SUPERVISED, Place, find_place, preempted, requeue
from pipeline.runs import attempts
from pipeline.runs import state as states
from pipeline.runs.attempts import AGAIN, INPUT, MEMORY, STOPPED

LOOK_EVERY = 0.2  # seconds between two looks at the processes
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
# What srun says first of tasks that end: where, and how; or that a node is gone.
DIED = re.compile(r"srun: error: ([\w.-]+): tasks? [\d,-]+: (.+)")
LOST = re.compile(r"srun: error: Node failure on ([\w.-]+)")
OUT_OF_MEMORY = "Out Of Memory"
BY_NODE = ("Killed", "Bus error", "its node is lost", OUT_OF_MEMORY)  # a node may be the cause
BY_SIGNAL = 128  # a shell's and srun's status is so much more than the signal's number


@dataclass
class Asked:
    """By which signals this job was asked to end, and to which processes of this node they are passed on."""

    by: list[int] = field(default_factory=list)
    children: list[local.RunProcess] = field(default_factory=list)


@dataclass
class RankStep:
    """An srun, or a process of this node."""

    process: subprocess.Popen[bytes]
    first: int  # the number of the attempt that it will make
    died: tuple[str, str] = ("", "")  # where its first task ended, and how
    reader: threading.Thread | None = None

    def poll(self) -> int | None:
        status = self.process.poll()
        if status is not None and self.reader:
            self.reader.join()
        return status


Start = Callable[[PlannedRun], RankStep]


@contextmanager
def asked_to_end(place: Place) -> Iterator[Asked]:
    """Signals end the ranks, not this process: it sees how they end.

    A site that cancels what it preempts starts nothing again by itself, but takes a job that is just being
    ended back into the queue.
    """
    asked = Asked()

    def handle(number: int, frame: FrameType | None) -> None:
        asked.by.append(number)
        for child in asked.children:
            child.send(signal.Signals(number))
        if number == signal.SIGTERM and preempted(place, ended=True):
            requeue(place)  # it is refused where Slurm does that by itself

    before = {number: signal.signal(number, handle) for number in ENDING}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def supervise(runs: Sequence[PlannedRun], start: Start, asked: Asked, place: Place) -> int:
    """Each to its end. The worst status; 0 where the job is queued again."""
    worst, waiting, elsewhere = 0, list[PlannedRun](), list[PlannedRun]()
    active = {run.id: start(run) for run in runs}
    while active:
        for run in runs:
            if run.id not in active or (status := active[run.id].poll()) is None:
                continue
            step = active.pop(run.id)
            status = BY_SIGNAL - status if status < 0 else status
            if status == AGAIN or (not status and _goes_on(run, step, place)):
                waiting.append(run)
                continue
            again, why = judge(run.directory, step, status) if status and not asked.by else (False, "")
            if why:
                print(f"run {run.id}: {why}", flush=True)
            if not again:
                worst = max(worst, status)
            elif nodes.can_go_on(run.config, step.died[0]):
                active[run.id] = start(run)
            else:
                elsewhere.append(run)
        time.sleep(LOOK_EVERY)
    if elsewhere:
        return submit_again([*waiting, *elsewhere], place, "its nodes fail")
    if not waiting:
        return worst
    if refused := requeue(place):
        return submit_again(waiting, place, refused)
    print(f"job {place.job} is queued again", flush=True)
    return 0


def _goes_on(run: PlannedRun, step: RankStep, place: Place) -> bool:
    """Whether a run whose ranks have ended well is to be continued by the next start of the job."""
    if run.record.is_file():
        return False
    end = attempts.ending(run.directory, step.first)
    return end is None or end.end != STOPPED or end.again or preempted(place)


def judge(directory: Path, step: RankStep, status: int) -> tuple[bool, str]:
    """Whether a run whose ranks have failed is started again in this job, and why."""
    _note_killed(directory, step, status)
    found = attempts.failures(directory)
    if not found or found[-1].number < step.first:  # it has not begun
        return False, ""
    last, earlier = found[-1], found[:-1]
    if last.cause == INPUT:
        return False, ""
    if last.cause == MEMORY:
        if any(one.cause == MEMORY for one in earlier):
            return False, f"out of memory again, with a micro-batch of {last.micro_batch}"
        return True, f"out of memory with a micro-batch of {last.micro_batch}; it goes on with half of it"
    if earlier and (earlier[-1].number, earlier[-1].step) == (last.number - 1, last.step):
        return False, f"it failed twice after step {last.step:,}: a fault that another start would not cure"
    return True, f"{last}; it is started again in this job"


def _note_killed(directory: Path, step: RankStep, status: int) -> None:
    """Write the end of ranks that had no time to, and which node may be the cause."""
    node, how = step.died
    if how in BY_NODE and node:
        nodes.note(directory.parent, node, f"{how}, run {directory.name}")
    begun = [one for one in attempts.attempts(directory) if one.number >= step.first]
    if attempts.ending(directory, step.first) or not begun or (status <= BY_SIGNAL and how not in BY_NODE):
        return
    log = attempts.AttemptLog(directory, begun[-1].number, begun[-1].micro_batch)
    state = states.read(directory)
    log.step = state.step if state and state.attempt == log.number else begun[-1].step
    where = f"on {node}: {how}" if node else f"by signal {status - BY_SIGNAL}"
    log.fail(f"killed {where}", MemoryError() if how == OUT_OF_MEMORY else None)


def submit_again(runs: Sequence[PlannedRun], place: Place, refused: str) -> int:
    """A new job, which starts after this one."""
    try:
        jobs = [one.job for one in submission.submit(runs, behind=place.job) if one.new]
    except WorkFailed as error:
        jobs, refused = [], f"{refused}; {error}"
    print(f"job {place.job} could not be requeued: {refused}; submitted: {', '.join(jobs) or 'nothing'}")
    if not jobs:
        for run in runs:
            log = attempts.AttemptLog(run.directory, attempts.next_number(run.directory) - 1)
            log.fail(f"job {place.job} could not be requeued: {refused}")
    return 0 if jobs else 1


def watched(run: PlannedRun, program: Sequence[str], asked: Asked, place: Place, output: str = "") -> int:
    """Train a run by srun, to its end; the status. `output`: Slurm's pattern of its ranks' files."""
    if not sound(run):
        return submit_again([run], place, "a node is not sound")
    with nodes.keeper(run.config):
        return supervise([run], lambda run: ranks(run, program, output), asked, place)


def sound(run: PlannedRun) -> bool:
    """Whether the job has nodes enough that pass a check, where one is wanted; the others are left out."""
    config = run.config
    runs = Path(config.paths.runs)
    if not config.cluster.check:
        return True
    runs.mkdir(parents=True, exist_ok=True)
    while True:
        words = ("-m", "pipeline.processes.node_check", config.engine.device, str(runs.absolute()))
        done = subprocess.run(_srun(run, words), env=_environment(run), stdout=subprocess.PIPE, check=False)
        lines = (row for _, row in whole_lines(done.stdout))
        bad = node_check.verdict(lines, nodes.used(config))
        for node, why in bad.items():
            print(f"{node} is not sound: {why}", flush=True)
            nodes.note(runs, node, why, times=nodes.TWICE)
        if not bad or not all(nodes.can_go_on(config, node) for node in bad):
            return not bad


def ranks(run: PlannedRun, program: Sequence[str], output: str = "") -> RankStep:
    """One process of the run on each of its places."""
    number = attempts.next_number(run.directory)
    words = _srun(run, program, output)
    step = RankStep(subprocess.Popen(words, env=_environment(run), stderr=subprocess.PIPE), number)
    step.reader = threading.Thread(target=_read, args=(step,), daemon=True)
    step.reader.start()
    return step


def _srun(run: PlannedRun, program: Sequence[str], output: str = "") -> list[str]:
    cores, config = os.environ.get("SLURM_CPUS_PER_TASK"), run.config
    words = ["srun", "--unbuffered", "--kill-on-bad-exit=1", "--export=ALL", "--open-mode=append"]
    words += [f"--cpus-per-task={cores}"] if cores else []
    words += [f"--output={output}"] if output else []
    words += [*nodes.options(config), *containers.options(config)]
    return [*words, *containers.command(config), "sh", resources.RANK, *program]


def _environment(run: PlannedRun) -> dict[str, str]:
    return os.environ | {SUPERVISED: "1"} | containers.variables(run.config)


def _read(step: RankStep) -> None:
    """Pass on what srun says and, where their output has no file, the ranks."""
    assert step.process.stderr is not None
    for line in step.process.stderr:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        text = line.decode(errors="replace").rstrip()
        if lost := LOST.match(text):
            step.died = (lost[1], BY_NODE[2])
        elif (found := DIED.match(text)) and not step.died[0]:
            step.died = (found[1], found[2])


def main(argv: Sequence[str]) -> int:
    """For a batch file: its run is that of the words after train.py."""
    config = from_command_line(argv[1:], __doc__ or "")
    if config is None:
        return 0
    [run] = planned([RequestedRun(config)])
    place = find_place()
    with asked_to_end(place) as asked:
        return watched(run, argv, asked, place)


if __name__ == "__main__":
    command(main)
