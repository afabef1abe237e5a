"""A rehearsal on a cluster: the copy of the run is a job, which requeues itself."""

import time
from pathlib import Path

from pipeline.errors import WorkFailed
from pipeline.launching.plan import PlannedRun
from pipeline.launching.rehearsal import PATIENCE
from pipeline.launching.slurm import commands, launches, resources, submission
from pipeline.runs import attempts
from pipeline.runs.directory import run_directory

LOOK_EVERY = 1.0  # seconds between two questions to the controller


class SlurmRun:
    def __init__(self, run: PlannedRun) -> None:
        self._run, self._runs = run, Path(run.config.paths.runs)
        [submitted] = submission.submit([run])
        self._job, self._asked, self._said = submitted.job, 0.0, ""

    def interrupt(self) -> None:
        """As Slurm does before a time limit, and before a preemption where it is set up so."""
        commands.signal(self._job, resources.SIGNAL)

    def end(self) -> None:
        submission.cancel(self._runs, [self._run.id])
        deadline = time.monotonic() + PATIENCE
        while self._live():
            if time.monotonic() > deadline:
                raise WorkFailed(f"job {self._job} does not end; scancel {self._job}")
            time.sleep(LOOK_EVERY)

    def problem(self) -> str:
        if time.monotonic() - self._asked >= LOOK_EVERY:
            self._said = "" if self._live() else self._end()
            self._asked = time.monotonic()
        return self._said

    def _live(self) -> bool:
        job = commands.jobs([self._job]).get(self._job)
        return job is not None and job.live

    def _end(self) -> str:
        printed = launches.outputs(self._runs, self._run.id)
        why = attempts.last_end(run_directory(self._run.config, self._run.id)) or "it has ended"
        return f"job {self._job}: {why}" + (f"; {printed[-1]} has what it printed" if printed else "")
