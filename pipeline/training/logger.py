"""What rank 0 reports about a run: on the screen, in files, and to trackers (TensorBoard, Weights & Biases).

    metrics.jsonl   loss, lr, grad norm, accuracies: functions of the step alone, so that a run that was
                    killed and resumed leaves the same bytes as one that was not
    timing.jsonl    images/s, data wait, memory, by wall clock; one line per start, so that lost work counts
    log.txt         the lines that were shown, with the time

A step is the count of updates done: a checkpoint of step 40 belongs to the line "step": 40.
"""

import contextlib
import dataclasses
import json
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.machine import LoggingConfig
from pipeline.files import MOST_LINES, publish_bytes
from pipeline.processes import energy
from pipeline.processes.pace import SlowRank
from pipeline.runs import state as states
from pipeline.runs.checkpoints import write_files
from pipeline.runs.directory import LOG, METRICS, TIMING
from pipeline.runs.log import LineFile, _rows, _stamp
from pipeline.runs.state import RunState
from pipeline.terminal import Display, clock, open_display
from pipeline.training.trackers import Tracker, open_trackers
from tnt.untrusted.reading import read_bytes
from tnt.untrusted.showing import shown

SLOW = 1.5  # times the median: a rank is named


@dataclass(frozen=True)
class RunSize:
    steps: int
    steps_per_epoch: int
    images_per_step: int
    devices: int = 1
    limits: Mapping[str, float] = field(default_factory=dict)  # images/s at which a share would be 1, by name


class RunLogger:
    """Every rank has one and makes the same calls; only rank 0's writes and shows anything."""

    def __init__(
        self,
        directory: Path,
        config: LoggingConfig,
        size: RunSize,
        *,
        rank: int = 0,
        id: str = "",
        values: Mapping[str, Any] | None = None,
        state: RunState | None = None,
    ) -> None:
        self.directory, self._config, self._size, self._silent = directory, config, size, rank != 0
        self._id, self._values = id, dict(values or {})
        self._state = dataclasses.replace(
            state or RunState(), steps=size.steps, images_per_step=size.images_per_step
        )
        self._at = 0
        self._display: Display | None = None
        self._trackers: list[Tracker] = []
        self._files: dict[str, LineFile] = {}  # by name; what is measured has its own from `rewind` on
        self._interval, self._attempt = _Interval(), _Interval()
        self._last = time.monotonic()
        self._loss = math.nan
        self._slowest: int | None = None
        self._handler = _ToLog(self)
        if not self._silent:
            directory.mkdir(parents=True, exist_ok=True)
            self._files[LOG] = LineFile(directory / LOG)
            logging.getLogger("pipeline").addHandler(self._handler)

    def rewind(self, step: int, checkpoint: Path | None = None) -> list[str]:
        """Go on after this step: lines about later steps are removed, and one about its evaluation, which is
        done again. What its checkpoint's copy says otherwise is right, and is said. Called once, before the
        first step."""
        if self._silent:
            return []
        path = self.directory / METRICS
        found = ((line, row["step"], "evaluated" in row) for line, row in _rows(path))
        kept = b"".join(line for line, at, evaluated in found if at < step or (at == step and not evaluated))
        copy = checkpoint / METRICS if checkpoint else path
        changed = copy != path and copy.exists() and read_bytes(copy, MOST_LINES) != kept
        publish_bytes(path, read_bytes(copy, MOST_LINES) if changed else kept)
        self._files[METRICS] = LineFile(path)
        timing = self.directory / TIMING
        publish_bytes(timing, b"".join(line for line, _ in _rows(timing)))  # without a line torn by a kill
        self._files[TIMING] = LineFile(timing)
        self._at = step
        start = {"start": self._size.devices, "steps": self._size.steps, "images": self._size.images_per_step}
        self._write(TIMING, {"step": step, "time": time.time(), **start, **energy.joules()})
        self._trackers = open_trackers(self._config, self.directory, step, self._id, self._values)
        self._say_state()
        self._display = open_display(self._size.steps, step, self._config.seconds)
        self.resumed_clock()
        said = f"{METRICS} was not as the checkpoint of step {step} holds it, and was put right from there"
        return [said] if changed else []

    def copy(self) -> Callable[[Path], list[str]]:
        """The metrics so far, a part of a checkpoint: nobody can change them later without being noticed.

        What comes back writes them, on rank 0 alone, and says the file's name.
        """
        self.flush()
        files = {} if self._silent else {METRICS: read_bytes(self.directory / METRICS, MOST_LINES)}

        return partial(write_files, files)

    def step(
        self,
        step: int,
        values: Mapping[str, float] | None = None,
        wait: float = 0.0,
        slowest: SlowRank | None = None,
    ) -> None:
        """An update is done, which waited `wait` seconds for data; `values` are for a line about it, and the
        slowest rank since the last one."""
        if self._silent:
            return
        self._at = step
        now = time.monotonic()
        for interval in (self._interval, self._attempt):
            interval.count(now - self._last, wait)
        self._last = now
        if values is not None:
            row = {"step": step, "epoch": round(step / self._size.steps_per_epoch, 4), **_numbers(values)}
            self._write(METRICS, row)
            self._track(step, _numbers(values), "train")
            self._loss = values.get("loss", math.nan)
            self._write_timing(slowest)
        assert self._display is not None, "rewind comes first"
        self._display.show(step, self._progress())

    def evaluation(self, epoch: int, values: Mapping[str, float]) -> None:
        """The measures after an epoch, at the last step."""
        if self._silent:
            return
        self._write(METRICS, {"step": self._at, "evaluated": epoch, **_numbers(values)})
        self._track(self._at, _numbers(values), "validation")
        self._say_state(top1=values.get("ema_top1", values.get("top1")))
        self.note(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        self.resumed_clock()

    def note(self, text: str) -> None:
        """A line for log.txt and for the person who watches."""
        if self._silent:
            return
        stamp, text = _stamp(), "\n".join(map(shown, text.splitlines()))
        self._files[LOG].write("".join(f"{stamp} {line}\n" for line in text.splitlines()))
        if self._display is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._display.say(text)

    def flush(self) -> None:
        """Write everything to the disk: before a checkpoint of this step is published."""
        if self._interval.steps:
            self._write_timing()
        for file in self._files.values():
            file.sync()
        self.resumed_clock()

    def resumed_clock(self) -> None:
        """The time between the last step and now was not training."""
        self._last = time.monotonic()

    def close(self) -> None:
        logging.getLogger("pipeline").removeHandler(self._handler)
        try:
            with contextlib.ExitStack() as parts:  # each is closed, whatever another one meets
                for part in (*self._files.values(), self._display, *self._trackers):
                    if part is not None:
                        parts.callback(part.close)
                if METRICS in self._files:
                    self.flush()
        except OSError as error:
            print(f"error: the last lines in {self.directory} are lost: {error.strerror}", file=sys.stderr)

    def _write(self, name: str, row: Mapping[str, Any]) -> None:
        self._files[name].write(json.dumps(row) + "\n")

    def _write_timing(self, slowest: SlowRank | None = None) -> None:
        rate, share = self._interval.rate(self._size.images_per_step), self._interval.wait_share()
        row = {"images_per_second": round(rate, 2), "wait_share": round(share, 4), "memory_gb": _memory()}
        row |= {name: round(rate / most, 4) for name, most in self._size.limits.items()}
        if slowest:
            row |= {"slowest_rank": slowest.rank, "slowest_over_median": round(slowest.ratio, 3)}
            if slowest.ratio >= SLOW and slowest.rank != self._slowest:
                self.note(
                    f"rank {slowest.rank} on {slowest.host} keeps the others waiting: its own part of a step "
                    f"takes {slowest.ratio:.1f} times the ranks' median"
                )
                self._slowest = slowest.rank  # said once
        self._write(TIMING, {"step": self._at, "time": time.time(), **row, **energy.joules()})
        self._say_state(images_per_second=row["images_per_second"])
        self._track(self._at, row, "machine")
        self._interval = _Interval()

    def _say_state(self, **changed: Any) -> None:
        self._state = dataclasses.replace(self._state, step=self._at, time=time.time(), **changed)
        states.write(self.directory, self._state)

    def _track(self, step: int, values: Mapping[str, float | None], group: str) -> None:
        points = {f"{group}/{name}": value for name, value in values.items() if value is not None}
        for tracker in tuple(self._trackers):
            try:
                tracker.add(step, points)
            except OSError as error:
                self._trackers.remove(tracker)
                self.note(f"{type(tracker).__name__} gets no more points: {error.strerror}")

    def _progress(self) -> str:
        rate = self._attempt.rate(self._size.images_per_step)
        left = (self._size.steps - self._at) * self._size.images_per_step / rate if rate else math.nan
        parts = [f"epoch {self._at // self._size.steps_per_epoch}", f"loss {self._loss:.3f}"]
        parts += [f"{rate:,.0f} images/s", f"{self._attempt.wait_share():.0%} waiting"]
        parts += [f"{_memory():.1f} GB"] + ([f"{clock(left)} left"] if left == left else [])
        return ", ".join(parts)


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


class _ToLog(logging.Handler):
    """What modules log (a damaged sample, a checkpoint moved aside) becomes a line of log.txt."""

    def __init__(self, logger: RunLogger) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self._logger.note(f"{record.levelname.lower()}: {record.getMessage()}")


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN: what is not finite is null."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def _memory() -> float:
    """GB at most: of the GPU where there is one, else of this process."""
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        return round(torch.cuda.max_memory_allocated() / 1e9, 3)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)
