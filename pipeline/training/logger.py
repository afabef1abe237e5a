"""What rank 0 tells of a run: to the person who watches, to files, to trackers of curves.

    metrics.jsonl   loss, lr, grad norm, accuracies: functions of the step alone, so that a run that was
                    killed and resumed leaves the same bytes as one that was not
    timing.jsonl    images/s, data wait, memory, by wall clock; one line per start, so that lost work counts
    log.txt         what was said, with the time

A step is the count of updates done: a checkpoint of step 40 belongs to the line "step": 40.
"""

import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pipeline.config.machine import LoggingConfig
from pipeline.files import publish_bytes
from pipeline.runs.directory import LOG, METRICS, TIMING
from pipeline.runs.log import _appending, _rows, _stamp
from pipeline.terminal import Display, clock, open_display
from pipeline.training.trackers import Tracker, open_trackers


@dataclass(frozen=True)
class Plan:
    """The size of a run."""

    steps: int
    steps_per_epoch: int
    images_per_step: int
    devices: int = 1


class Quiet:
    """The journal of every rank but 0."""

    def wants(self, step: int) -> bool:
        """Whether this step's values will be written: reading them from a GPU makes it wait."""
        return False

    def step(self, step: int, values: Mapping[str, float] | None = None, wait: float = 0.0) -> None:
        """An update is done; `wait` is how long it waited for data, in seconds."""

    def evaluation(self, epoch: int, values: Mapping[str, float]) -> None:
        """The measures after an epoch, at the last step."""

    def note(self, text: str) -> None:
        """Something worth keeping."""

    def flush(self) -> None:
        """Bring everything to the disk: before a checkpoint of this step is published."""

    def rewind(self, step: int) -> None:
        """Go on after this step; what an earlier attempt said of later ones is dropped. Comes first, once."""

    def resumed_clock(self) -> None:
        """What lies between the last step and now is not training."""

    def close(self) -> None: ...


class Journal(Quiet):
    def __init__(
        self,
        directory: Path,
        config: LoggingConfig,
        plan: Plan,
        *,
        id: str = "",
        values: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory, self._config, self._plan = directory, config, plan
        self._id, self._values = id, dict(values or {})
        directory.mkdir(parents=True, exist_ok=True)
        self._log = _appending(directory / LOG)
        self._handler = _ToJournal(self)
        logging.getLogger("pipeline").addHandler(self._handler)
        self._at = 0
        self._display: Display | None = None
        self._trackers: list[Tracker] = []
        self._metrics: TextIO | None = None
        self._timing: TextIO | None = None
        self._interval, self._attempt = _Interval(), _Interval()
        self._last = time.monotonic()
        self._loss = math.nan

    def rewind(self, step: int) -> None:
        assert self._metrics is None, "a journal is rewound once, before its first step"
        path = self.directory / METRICS
        kept = [line for line, row in _rows(path) if row["step"] <= step]
        publish_bytes(path, b"".join(kept))
        self._metrics = _appending(path)
        timing = self.directory / TIMING
        publish_bytes(timing, b"".join(line for line, _ in _rows(timing)))  # without a line torn by a kill
        self._timing = _appending(timing)
        self._at = step
        size = {"start": self._plan.devices, "steps": self._plan.steps, "images": self._plan.images_per_step}
        self._write(self._timing, {"step": step, "time": time.time(), **size})
        self._trackers = open_trackers(self._config, self.directory, step, self._id, self._values)
        self._display = open_display(self._plan.steps, step, self._config.seconds)
        self.resumed_clock()

    def wants(self, step: int) -> bool:
        return step % self._config.every == 0 or step in (1, self._plan.steps)

    def step(self, step: int, values: Mapping[str, float] | None = None, wait: float = 0.0) -> None:
        self._at = step
        now = time.monotonic()
        for interval in (self._interval, self._attempt):
            interval.count(now - self._last, wait)
        self._last = now
        if values is not None:
            row = {"step": step, "epoch": round(step / self._plan.steps_per_epoch, 4), **_numbers(values)}
            self._write(self._metrics, row)
            self._track(step, _numbers(values), "train")
            self._loss = values.get("loss", math.nan)
            self._write_timing()
        assert self._display is not None, "rewind comes first"
        self._display.show(step, self._progress())

    def evaluation(self, epoch: int, values: Mapping[str, float]) -> None:
        self._write(self._metrics, {"step": self._at, "evaluated": epoch, **_numbers(values)})
        self._track(self._at, _numbers(values), "validation")
        self.note(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        self.resumed_clock()

    def note(self, text: str) -> None:
        stamp = _stamp()
        self._log.write("".join(f"{stamp} {line}\n" for line in text.splitlines()))
        self._log.flush()
        if self._display is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._display.say(text)

    def flush(self) -> None:
        if self._interval.steps:
            self._write_timing()
        for file in (self._metrics, self._timing, self._log):
            if file is not None:
                file.flush()
                os.fsync(file.fileno())
        self.resumed_clock()

    def resumed_clock(self) -> None:
        self._last = time.monotonic()

    def close(self) -> None:
        logging.getLogger("pipeline").removeHandler(self._handler)
        if self._metrics is not None:
            self.flush()
        for part in (*self._trackers, self._display, self._metrics, self._timing, self._log):
            if part is not None:
                part.close()

    def _write(self, file: TextIO | None, row: Mapping[str, Any]) -> None:
        assert file is not None, "rewind comes first"
        file.write(json.dumps(row) + "\n")
        file.flush()

    def _write_timing(self) -> None:
        rate, share = self._interval.rate(self._plan.images_per_step), self._interval.wait_share()
        row = {"images_per_second": round(rate, 2), "wait_share": round(share, 4), "memory_gb": _memory()}
        self._write(self._timing, {"step": self._at, "time": time.time(), **row})
        self._track(self._at, row, "machine")
        self._interval = _Interval()

    def _track(self, step: int, values: Mapping[str, float | None], group: str) -> None:
        points = {f"{group}/{name}": value for name, value in values.items() if value is not None}
        for tracker in self._trackers:
            tracker.add(step, points)

    def _progress(self) -> str:
        rate = self._attempt.rate(self._plan.images_per_step)
        left = (self._plan.steps - self._at) * self._plan.images_per_step / rate if rate else math.nan
        parts = [f"epoch {self._at // self._plan.steps_per_epoch}", f"loss {self._loss:.3f}"]
        parts += [f"{rate:,.0f} images/s", f"{self._attempt.wait_share():.0%} waiting"]
        parts += [f"{_memory():.1f} GB"] + ([f"{clock(left)} left"] if left == left else [])
        return ", ".join(parts)


def open_journal(rank: int, directory: Path, config: LoggingConfig, plan: Plan, **more: Any) -> Quiet:
    return Quiet() if rank else Journal(directory, config, plan, **more)


class _Interval:
    """Training steps, what they took and what they waited for data, in seconds."""

    def __init__(self) -> None:
        self.steps, self.seconds, self.wait = 0, 0.0, 0.0

    def count(self, took: float, wait: float) -> None:
        self.steps += 1
        self.seconds += took
        self.wait += wait

    def rate(self, images: int) -> float:
        return self.steps * images / self.seconds if self.seconds else 0.0

    def wait_share(self) -> float:
        return min(1.0, self.wait / self.seconds) if self.seconds else 0.0


class _ToJournal(logging.Handler):
    """What modules log (a damaged sample, a checkpoint moved aside) is said in the journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.INFO)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        self._journal.note(f"{record.levelname.lower()}: {record.getMessage()}")


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN: what is not finite is null."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def _memory() -> float:
    """GB at most: of the GPU where there is one, else of this process."""
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        return round(torch.cuda.max_memory_allocated() / 1e9, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)
