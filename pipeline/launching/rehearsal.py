"""Checks that an interrupted run continues exactly: before a long run is started, or where it will run.

Two copies of the run train a few steps in a folder of their own. One is not disturbed. The other gets the
scheduler's signal after a few steps, is started again, and trains as many more. Loss and gradient norm of
every step must be equal to the last digit. The run itself and its record are not touched.
"""

import dataclasses
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.config.machine import Paths
from pipeline.errors import WorkFailed
from pipeline.launching import local
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import commands, resources, submission
from pipeline.launching.status import status_of
from pipeline.runs import attempts
from pipeline.runs.directory import run_directory
from pipeline.runs.log import metrics

FOLDER = ".rehearsals"  # among the runs
STEPS = 5  # before the signal, and after it
PATIENCE = 1800.0  # seconds for those steps, with the time in a queue
LOOK_EVERY = 0.1  # seconds between two looks at a run's files
ASK_EVERY = 10  # looks between two questions to the scheduler


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

    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class SlurmCopy:
    """A copy of a run, trained by a job, which requeues itself after the signal."""

    def __init__(self, run: PlannedRun) -> None:
        self.run, self._runs = run, Path(run.config.paths.runs)
        [submitted] = submission.submit([run])
        self._job = submitted.job

    def interrupt(self) -> None:
        """As Slurm does before a time limit, and before a preemption where it is set up so."""
        commands.signal(self._job, resources.SIGNAL)

    def alive(self) -> bool:
        job = commands.jobs([self._job]).get(self._job)
        return job is not None and job.live

    def end(self) -> None:
        submission.cancel(self._runs, [self.run.id])
        deadline = time.monotonic() + PATIENCE
        while self.alive():
            if time.monotonic() > deadline:
                raise WorkFailed(f"job {self._job} does not end; scancel {self._job}")
            time.sleep(LOOK_EVERY * ASK_EVERY)


Copy = LocalCopy | SlurmCopy


def rehearse(run: PlannedRun, start: type[Copy], steps: int = STEPS) -> str:
    """What was shown, in one line; a failure says what differs and keeps both copies."""
    folder = Path(run.config.paths.runs).absolute() / FOLDER / run.id
    shutil.rmtree(folder, ignore_errors=True)
    left_alone, disturbed = (_copied(run, folder / name) for name in ("left-alone", "interrupted"))
    copy = start(disturbed)
    try:
        _reaches(copy, steps)
        copy.interrupt()
        _until(copy, lambda: len(_starts(disturbed)) > 1, "it was not started again after the signal")
        at = _starts(disturbed)[1].step
        if at < steps:
            raise WorkFailed(f"after the signal the run began again at step {at}, and had done {steps}")
        _reaches(copy, at + steps)
    finally:
        copy.end()
    copy = start(left_alone)
    try:
        _reaches(copy, at + steps)
    finally:
        copy.end()
    expected, found = _losses(left_alone), _losses(disturbed)
    for step in range(1, at + steps + 1):
        if step not in found or expected[step] != found[step]:
            raise WorkFailed(
                f"step {step} is {found.get(step)} in the interrupted run and {expected[step]} in the other, "
                f"where the signal came after step {at}; both are in {folder}"
            )
    shutil.rmtree(folder)
    return (
        f"run {run.id} was interrupted after step {at} and went on to step {at + steps}: loss and gradient "
        "norm of every step are those of a run left alone, to the last digit"
    )


def _copied(run: PlannedRun, folder: Path) -> PlannedRun:
    """The same run with other paths, which logs every step and computes nothing in an order of chance."""
    paths = Paths(runs=str(folder), records=str(folder / "records"), data=run.config.paths.data)
    logging = dataclasses.replace(run.config.logging, every=1, tensorboard=False, wandb="")
    engine = dataclasses.replace(
        run.config.engine, checkpoint_minutes=0.0, checkpoint_every=10**6, deterministic=True
    )
    return dataclasses.replace(
        run, config=dataclasses.replace(run.config, paths=paths, logging=logging, engine=engine)
    )


def _reaches(copy: Copy, step: int) -> None:
    _until(copy, lambda: max(_losses(copy.run), default=0) >= step, f"it did not reach step {step}")


def _until(copy: Copy, condition: Callable[[], bool], otherwise: str) -> None:
    for look in range(int(PATIENCE / LOOK_EVERY)):
        if condition():
            return
        if look % ASK_EVERY == 0 and not copy.alive() and not condition():
            why = status_of(copy.run).error or "it has ended"
            raise WorkFailed(f"{otherwise}: {why}; see {copy.run.config.paths.runs}")
        time.sleep(LOOK_EVERY)
    raise WorkFailed(f"{otherwise} within {PATIENCE / 60:g} minutes")


def _losses(run: PlannedRun) -> dict[int, tuple[float, float]]:
    rows = metrics(run_directory(run.config, run.id))
    return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows if "grad_norm" in row}


def _starts(run: PlannedRun) -> list[attempts.Attempt]:
    return attempts.attempts(run_directory(run.config, run.id))
