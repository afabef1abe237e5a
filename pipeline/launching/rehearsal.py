"""Checks that an interrupted run continues exactly: before a long run is started, or where it will run.

Two copies of the run train a few steps in a folder of their own. One is not disturbed. The other gets the
scheduler's signal after a few steps, is started again, and trains as many more. Loss and gradient norm of
every step must be equal to the last digit. The run itself and its record are not touched.
"""

import dataclasses
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pipeline.config.machine import Paths
from pipeline.errors import WorkFailed
from pipeline.files import PACKAGE
from pipeline.launching.plan import PlannedRun
from pipeline.runs import attempts
from pipeline.runs.directory import OUTPUT, run_directory, write_config
from pipeline.runs.log import metrics, printed_error

FOLDER = ".rehearsals"  # among the runs
STEPS = 5  # before the signal, and after it
PATIENCE = 1800.0  # seconds for those steps, with the time in a queue
LOOK_EVERY = 0.1


class RehearsedRun(Protocol):
    """A copy of the run while it trains."""

    def interrupt(self) -> None:
        """Send the scheduler's signal, and start the copy again if the scheduler does not."""

    def end(self) -> None:
        """Stop it."""

    def problem(self) -> str:
        """Why it does not train any more; "" while it does."""


Start = Callable[[PlannedRun], RehearsedRun]


def rehearse(run: PlannedRun, start: Start, steps: int = STEPS) -> str:
    """What was shown, in one line; a failure says what differs and keeps both copies."""
    folder = Path(run.config.paths.runs).absolute() / FOLDER / run.id
    shutil.rmtree(folder, ignore_errors=True)
    left_alone, disturbed = (_copy(run, folder / name) for name in ("left-alone", "interrupted"))
    at = _interrupted(disturbed, start, steps)
    goal = at + steps
    copy = start(left_alone)
    try:
        _reaches(left_alone, copy, goal)
    finally:
        copy.end()
    expected, found = _losses(left_alone), _losses(disturbed)
    for step in range(1, goal + 1):
        if step not in found or expected[step] != found[step]:
            raise WorkFailed(
                f"step {step} is {found.get(step)} in the interrupted run and {expected[step]} in the other, "
                f"where the signal came after step {at}; both are in {folder}"
            )
    shutil.rmtree(folder)
    return (
        f"run {run.id} was interrupted after step {at} and went on to step {goal}: loss and gradient norm "
        "of every step are those of a run left alone, to the last digit"
    )


def _interrupted(run: PlannedRun, start: Start, steps: int) -> int:
    """Interrupt the run and let it continue; the step after which it was interrupted."""
    copy = start(run)
    try:
        _reaches(run, copy, steps)
        copy.interrupt()
        _until(lambda: len(_starts(run)) > 1, copy, run, "it was not started again after the signal")
        at = _starts(run)[1].step
        if at < steps:
            raise WorkFailed(f"after the signal the run began again at step {at}, and had done {steps}")
        _reaches(run, copy, at + steps)
    finally:
        copy.end()
    return at


def _copy(run: PlannedRun, folder: Path) -> PlannedRun:
    """The same run with other paths, which logs every step and computes nothing in an order of chance."""
    paths = Paths(runs=str(folder), records=str(folder / "records"), data=run.config.paths.data)
    logging = dataclasses.replace(run.config.logging, every=1, tensorboard=False, wandb="")
    engine = dataclasses.replace(
        run.config.engine, checkpoint_minutes=0.0, checkpoint_every=10**6, deterministic=True
    )
    return dataclasses.replace(
        run, config=dataclasses.replace(run.config, paths=paths, logging=logging, engine=engine)
    )


def _reaches(run: PlannedRun, copy: RehearsedRun, step: int) -> None:
    _until(lambda: max(_losses(run), default=0) >= step, copy, run, f"it did not reach step {step}")


def _until(condition: Callable[[], bool], copy: RehearsedRun, run: PlannedRun, otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        problem = copy.problem()
        if problem and not condition():
            raise WorkFailed(f"{otherwise}: {problem}; see {run_directory(run.config, run.id)}")
        if time.monotonic() > deadline:
            raise WorkFailed(f"{otherwise} within {PATIENCE / 60:g} minutes")
        time.sleep(LOOK_EVERY)


def _losses(run: PlannedRun) -> dict[int, tuple[float, float]]:
    rows = metrics(run_directory(run.config, run.id))
    return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows if "grad_norm" in row}


def _starts(run: PlannedRun) -> list[attempts.Attempt]:
    return attempts.attempts(run_directory(run.config, run.id))


class LocalRun:
    """A copy that runs on this machine."""

    SIGNAL = signal.SIGUSR1

    def __init__(self, run: PlannedRun) -> None:
        self._run = run
        self._path = write_config(run.config, run.id)
        self._process = self._start()

    def interrupt(self) -> None:
        self._process.send_signal(self.SIGNAL)
        status = self._process.wait(PATIENCE)
        if status:
            raise WorkFailed(
                f"the run ended with status {status} on {self.SIGNAL.name}; see {self._path.parent}"
            )
        self._process = self._start()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def problem(self) -> str:
        status, directory = self._process.poll(), self._path.parent
        if status is None:
            return ""
        return attempts.last_end(directory) or printed_error(directory) or f"it ended with status {status}"

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-u", str(PACKAGE / "train.py"), "--config", str(self._path)]
        with open(self._path.parent / OUTPUT, "ab") as output:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
