"""A small real run as a job, and where to take hold of it."""

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.files import rows
from tests.pipeline.ranks import ROOT
from tests.pipeline.small_runs import Place
from tests.slurm.cluster import Cluster
from tests.slurm.daemons import environment, processes

PATIENCE = 120.0  # seconds for a step or a start; only a failing test waits for it

SCRIPT = f"""#!/bin/bash
#SBATCH --requeue --open-mode=append --signal=USR1@180 --time=60
cd {ROOT}
sh pipeline/launching/slurm/rank.sh -m pipeline.launching.slurm.supervision pipeline/train.py "$@"
"""


class Job(Place):
    def __init__(self, slurm: Cluster, folder: Path, digits: Path, *options: str) -> None:
        """`options` of sbatch."""
        super().__init__(folder, digits)
        self.slurm, self.options, self.id = slurm, options, ""

    def submit(self, *more: str) -> None:
        self.folder.mkdir(exist_ok=True)
        script = self.folder / "train.sh"
        script.write_text(SCRIPT)
        self.id = self.slurm.submit(
            "--output", str(self.folder / "job.txt"), *self.options, str(script), *self.settings, *more
        )

    def complete(self) -> Path:
        """Wait for its end; the run's directory."""
        job = self.slurm.wait_for(self.id, seconds=2 * PATIENCE)
        assert job["JobState"] == "COMPLETED", f"{job}\n{self.said()}"
        return self.directory

    def said(self) -> str:
        return (self.folder / "job.txt").read_text()

    def ends(self, name: str) -> int:
        """How often a signal of this name has ended it."""
        return self.said().count(f"ended by {name} after step")

    def starts(self) -> list[dict[str, Any]]:
        return [row for row in rows(self.directory / "attempts.jsonl") if "world" in row]

    def passes(self, steps: int) -> None:
        """Wait until it has published this many checkpoints more."""
        before = self.newest()
        self.slurm.wait(lambda: self.newest() >= before + steps, PATIENCE, f"{steps} steps of {self.id}")

    def newest(self) -> int:
        return max(self.steps(), default=0)

    def starts_again(self, times: int) -> None:
        """Wait until the scheduler runs it for this many times more than once."""
        self.slurm.wait(
            lambda: self.slurm.restarts(self.id) == times and self.slurm.state(self.id) == "RUNNING",
            PATIENCE,
            f"job {self.id} to be started again",
        )

    def ranks(self) -> dict[int, int]:
        """The process of each rank, once all of them are there."""
        found = {}
        for pid in processes(self.slurm.folder, daemons=False):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if command[0].endswith(b"python") and b"pipeline/train.py" in command[1:3]:
                    found[int(environment(pid)["SLURM_PROCID"])] = pid
        return found

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """No rank takes a step meanwhile, so that the run is not over before the fault has come."""
        ranks = self.ranks()
        _send(ranks.values(), signal.SIGSTOP)
        try:
            yield
        finally:
            _send(ranks.values(), signal.SIGCONT)

    def urgent(self) -> str:
        """Another job takes all nodes."""
        count = len(self.slurm.nodes)
        return self.slurm.submit("--partition=urgent", f"--nodes={count}", "--exclusive", "--wrap", "true")


def _send(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
