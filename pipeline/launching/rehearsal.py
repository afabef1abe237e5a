"""Checks that an interrupted run continues exactly: before a long run is started, or where it will run.

Two copies of the run train a few steps in a folder of their own. One is not disturbed. The other gets the
scheduler's signal after a few steps, is started again, and trains as many more. Loss and gradient norm of
every step must be equal to the last digit. The run itself and its record are not touched.

Whoever started it may vanish. So its jobs have a short time, and start a few times at most.
"""

import contextlib
import dataclasses
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.config.machine import Paths
from pipeline.errors import WorkFailed
from pipeline.launching import local
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import commands, preflight, resources, submission
from pipeline.launching.status import status_of
from pipeline.runs import attempts
from pipeline.runs.log import metrics

FOLDER = ".rehearsals"  # among the runs
STEPS = 5  # before the signal, and after it
PATIENCE = 1800.0  # seconds for those steps, without the time in a queue
LIMIT, STARTS = 30, 3  # minutes of a job at a stretch, and stretches: one may be cut short by a preemption
LOOK_EVERY = 0.1  # seconds between two looks at a run's files
ASK_EVERY = 10.0  # seconds between two questions to the scheduler


class LocalCopy:
    """A copy of a run, trained on this machine by one process."""

    def __init__(self, run: PlannedRun) -> None:
        self.run = run
        self._start()

    def _start(self) -> None:
        self._process = local.start(self.run, local.Capacity(1, (), 1), 0).process

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGUSR1)
        self._process.wait(PATIENCE)
        self._start()

    def state(self) -> str:
        return "" if self._process.poll() is not None else "running"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class SlurmCopy:
    """A copy of a run, trained by a job, which requeues itself after the signal."""

    def __init__(self, run: PlannedRun) -> None:
        self.run, self._runs = run, Path(run.config.paths.runs)
        [submitted] = submission.submit([run], starts=STARTS)
        self._job, self._asked, self._state = submitted.job, time.monotonic(), "pending"

    def interrupt(self) -> None:
        """As Slurm does before a time limit, and before a preemption where it is set up so."""
        commands.signal(self._job, resources.SIGNAL)

    def state(self) -> str:
        if time.monotonic() - self._asked >= ASK_EVERY:
            job = commands.jobs().get(self._job)
            state = str(job) if job and job.waiting else "running" if job and job.live else ""
            if state != self._state and state not in ("", "running"):
                print(f"waiting: {state}", file=sys.stderr, flush=True)
            self._asked, self._state = time.monotonic(), state
        return self._state

    def end(self) -> None:
        submission.cancel(self._runs, [self.run.id])
        deadline = time.monotonic() + PATIENCE
        while attempts.holder(self.run.directory):
            if time.monotonic() > deadline:
                raise WorkFailed(f"job {self._job} does not end; scancel {self._job}")
            time.sleep(LOOK_EVERY)


Copy = LocalCopy | SlurmCopy


def rehearse(run: PlannedRun, start: type[Copy]) -> str:
    """What was shown, in one line; a failure says what differs and keeps both copies."""
    folder = Path(run.config.paths.runs).absolute() / FOLDER / run.id
    shutil.rmtree(folder, ignore_errors=True)
    left_alone, disturbed = (_copied(run, folder / name) for name in ("left-alone", "interrupted"))
    with _started(start, disturbed) as (copy, until):
        until(lambda: _reached(disturbed) >= STEPS, f"it did not reach step {STEPS}")
        copy.interrupt()
        until(lambda: len(_starts(disturbed)) > 1, "it was not started again after the signal")
        at = _starts(disturbed)[1].step
        if at < STEPS:
            raise WorkFailed(f"after the signal the run began again at step {at}, and had done {STEPS}")
        until(lambda: _reached(disturbed) >= at + STEPS, f"it did not reach step {at + STEPS}")
    with _started(start, left_alone) as (_, until):
        until(lambda: _reached(left_alone) >= at + STEPS, f"it did not reach step {at + STEPS}")
    expected, found = _losses(left_alone), _losses(disturbed)
    for step in range(1, at + STEPS + 1):
        if step not in found or expected[step] != found[step]:
            raise WorkFailed(
                f"step {step} is {found.get(step)} in the interrupted run and {expected[step]} in the other, "
                f"where the signal came after step {at}; both are in {folder}"
            )
    shutil.rmtree(folder)
    return (
        f"run {run.id} was interrupted after step {at} and went on to step {at + STEPS}: loss and gradient "
        "norm of every step are those of a run left alone, to the last digit"
    )


def _copied(run: PlannedRun, folder: Path) -> PlannedRun:
    """The same run with other paths, which logs every step and computes nothing in an order of chance."""
    paths = Paths(runs=str(folder), records=str(folder / "records"), data=run.config.paths.data)
    logging = dataclasses.replace(run.config.logging, every=1, tensorboard=False, wandb="")
    engine = dataclasses.replace(
        run.config.engine, checkpoint_minutes=0.0, checkpoint_every=10**6, deterministic=True
    )
    site = run.config.cluster
    shorter = site.time and (preflight.minutes(site.time) or LIMIT) < LIMIT
    cluster = dataclasses.replace(site, pack=1, time=site.time if shorter else str(LIMIT))
    config = dataclasses.replace(run.config, paths=paths, logging=logging, engine=engine, cluster=cluster)
    return dataclasses.replace(run, config=config)


@contextlib.contextmanager
def _started(start: type[Copy], run: PlannedRun) -> Iterator[tuple[Copy, Callable[..., None]]]:
    """A copy at work, and what waits for it; whatever happens to us, it does not train on unseen."""
    asked: list[int] = []

    def until(condition: Callable[[], bool], otherwise: str) -> None:
        ran = 0.0
        while not condition():
            state = copy.state()
            if asked:
                raise KeyboardInterrupt if asked[0] == signal.SIGINT else SystemExit(128 + asked[0])
            if ran > PATIENCE:
                raise WorkFailed(f"{otherwise} within {PATIENCE / 60:g} minutes")
            if not state and not condition():
                why = status_of(run).error or "it has ended"
                raise WorkFailed(f"{otherwise}: {why}; see {run.config.paths.runs}")
            ran += LOOK_EVERY if state == "running" else 0.0
            time.sleep(LOOK_EVERY)

    heard = [number for number in local.ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in heard}
    try:
        copy = start(run)
        try:
            yield copy, until
        finally:
            copy.end()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _reached(run: PlannedRun) -> int:
    return max(_losses(run), default=0)


def _losses(run: PlannedRun) -> dict[int, tuple[float, float]]:
    rows = metrics(run.directory)
    return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows if "grad_norm" in row}


def _starts(run: PlannedRun) -> list[attempts.Attempt]:
    return attempts.attempts(run.directory)
