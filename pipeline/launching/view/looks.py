"""What is known of runs, looked at again and again: files each time, the scheduler every half minute."""

import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.launching import overview
from pipeline.launching.cost import costs_of
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import queue
from pipeline.launching.slurm.queue import Outlook
from pipeline.launching.status import RunStatus, statuses
from pipeline.runs.curves import accuracies, binned, losses
from pipeline.runs.directory import METRICS, TIMING
from pipeline.runs.log import metrics, spent

ASK_EVERY = 30.0  # seconds between two questions to the scheduler
POINTS = 60  # of a curve
AT_WORK = ("running", "pending", "unknown")


class Looks:
    def __init__(self, runs: Sequence[PlannedRun], again: bool) -> None:
        """`again`: it will be called more than once, and an answer to another process is good enough."""
        self._runs, self._age = runs, ASK_EVERY if again else 0.0
        self._slurm: Outlook | None = None
        self._asked = -math.inf

    def found(self) -> list[RunStatus]:
        return statuses(self._runs, self._outlook().jobs)

    def for_programs(self, found: Sequence[RunStatus]) -> dict[str, Any]:
        """What `action=status json=true` prints, and the page shows."""
        costs = costs_of(found, self._outlook().used)
        said = overview.for_programs(found, costs)
        for value, at in zip(said["runs"], found, strict=True):
            folder = at.run.directory
            hours, curves = _read(folder, _version(folder)) if at.run.id else (None, {})
            hours = hours if at.device_hours is None else at.device_hours
            value |= {"name": overview.cells(at.run), "device_hours": hours, "curves": curves}
        return said | {"seconds_left": overview.left_of_all(found), "time": time.time()}

    def _outlook(self) -> Outlook:
        if self._slurm is None or time.monotonic() - self._asked >= ASK_EVERY:
            self._slurm, self._asked = queue.outlook(self._runs, age=self._age), time.monotonic()
        return self._slurm


def _version(directory: Path) -> tuple[tuple[float, int], ...]:
    """Of its files as they are now: what was read of them before holds until they change."""
    stats = [path.stat() for name in (TIMING, METRICS) if (path := directory / name).exists()]
    return tuple((stat.st_mtime, stat.st_size) for stat in stats)


@functools.lru_cache(maxsize=1024)
def _read(
    directory: Path, version: tuple[tuple[float, int], ...]
) -> tuple[float | None, dict[str, tuple[tuple[float, float], ...]]]:
    """Device-hours; and the curves as epoch and value, thinned."""
    rows = metrics(directory)
    curves = {"loss": binned(losses(rows), POINTS), "top1": binned(accuracies(rows), POINTS)}
    return spent(directory).device_hours, curves
