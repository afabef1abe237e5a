"""A run's metrics, timing and logs: how lines are added, and how they are read."""

import contextlib
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files import MOST_LINES, to_add, whole_lines
from pipeline.runs.directory import LOG, METRICS, OUTPUT, TIMING
from tnt.untrusted.reading import open_regular, other_than, read_bytes
from tnt.untrusted.showing import shown
from tnt.untrusted.writing import storing

NUMBERS = ("time", "start", "steps", "images", "images_per_second", "epoch", "evaluated", "loss", "grad_norm",
           "top1", "ema_top1", "joules")  # fmt: skip
TAIL = 1 << 16  # bytes of a log's end that are read: hundreds of lines


class LineFile:
    """Lines added to a file. What a full disk refuses is kept; the next line, or `sync`, tries it again."""

    def __init__(self, path: Path) -> None:
        self._path, self._kept = path, b""
        self._file = open(path, "ab", buffering=0, opener=to_add)  # noqa: SIM115 - open for the whole run

    def write(self, text: str) -> None:
        self._kept += text.encode()
        with contextlib.suppress(OSError):  # which `sync` raises, before a checkpoint counts on the lines
            self._drain()

    def sync(self) -> None:
        with storing(self._path, len(self._kept)):
            self._drain()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _drain(self) -> None:
        while self._kept:
            self._kept = self._kept[self._file.write(self._kept) :]


@dataclass(frozen=True)
class Spent:
    """What all attempts of a run took together."""

    images_per_second: float  # the median of the measured intervals, without evaluation and checkpoints
    device_hours: float
    attempts: int
    joules: float = 0.0  # of all devices, if each drew what rank 0's did; 0 where nothing measures it


def metrics(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run's steps and evaluations in their order; none where there is no file."""
    return [row for _, row in _rows(directory / METRICS)]


def spent(directory: Path) -> Spent:
    """What the attempts took so far: each from its start to the last line that it wrote."""
    rates, hours, attempts = [], 0.0, 0
    before = devices = joules = 0.0
    counter: float | None = None
    for _, row in _rows(directory / TIMING):
        if not other_than(row, {"time": float, "start": float}):
            devices, attempts, before = row["start"], attempts + 1, row["time"]
            counter = row.get("joules")
        elif not other_than(row, {"time": float, "images_per_second": float}):
            hours += max(0.0, row["time"] - before) * devices / 3600
            before = row["time"]
            if counter is not None and row.get("joules") is not None:
                joules += max(0.0, row["joules"] - counter) * devices
            counter = row.get("joules")
            rates.append(row["images_per_second"])
    return Spent(statistics.median(rates) if rates else 0.0, hours, attempts, joules)


def error_line(directory: Path, text: str) -> None:
    """Add the error with which a process of the run ended to its log."""
    with open(directory / LOG, "a", encoding="utf-8", opener=to_add) as log:
        log.write(f"{_stamp()} error: {shown(text)}\n")


def _stamp() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S%z")


def printed_error(directory: Path) -> str:
    """The last error that a run's processes printed where launch.py started them, else their last line."""
    printed = tail(directory / OUTPUT)
    errors = [line for line in printed if line.startswith("error: ")]
    return (errors or printed or [""])[-1].removeprefix("error: ")


def tail(path: Path, lines: int = 0) -> list[str]:
    """The last lines of a file, all of those that are read where no number is given."""
    try:
        with open_regular(path) as file:
            skipped = max(0, file.seek(0, os.SEEK_END) - TAIL)
            file.seek(skipped)
            content = file.read()
    except FileNotFoundError:
        return []
    found = [shown(line) for line in content.decode(errors="replace").splitlines() if line.strip()]
    return (found[1:] if skipped else found)[-lines:]


def _rows(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Whole lines that say of which step they are, and hold numbers where numbers are read."""
    return [
        (line, row)
        for line, row in whole_lines(read_bytes(path, MOST_LINES) if path.exists() else b"")
        if type(row.get("step")) is int
        and row.get("steps", 1) != 0
        and all(row.get(name) is None or type(row[name]) in (int, float) for name in NUMBERS)
    ]
