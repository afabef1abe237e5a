"""What a run wrote while it trained, read again: metrics, timing, and the ends of its logs."""

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pipeline.runs.directory import LOG, METRICS, OUTPUT, TIMING

TAIL = 1 << 16  # bytes of a log's end that are read: hundreds of lines


@dataclass(frozen=True)
class Spent:
    """What all attempts took together."""

    images_per_second: float  # the median of the measured intervals, without evaluation and checkpoints
    wait_share: float
    device_hours: float
    attempts: int


def metrics(directory: Path) -> list[dict[str, Any]]:
    """What a run wrote of its steps and its evaluations, in their order; nothing where it left nothing."""
    return [row for _, row in _rows(directory / METRICS)]


def spent(directory: Path) -> Spent:
    """What the attempts of a run took so far: each from its start to the last line it wrote."""
    rates, waits, hours, attempts = [], [], 0.0, 0
    before = devices = 0.0
    for _, row in _rows(directory / TIMING):
        if "start" in row:
            devices, attempts, before = row["start"], attempts + 1, row["time"]
            continue
        hours += max(0.0, row["time"] - before) * devices / 3600
        before = row["time"]
        rates.append(row["images_per_second"])
        waits.append(row["wait_share"])
    return Spent(
        statistics.median(rates) if rates else 0.0, statistics.fmean(waits) if waits else 0.0, hours, attempts
    )


def error_line(directory: Path, text: str) -> None:
    """What a process of the run died of, for whoever asks how the run stands; any rank may say it."""
    with _appending(directory / LOG) as log:
        log.write(f"{_stamp()} error: {' '.join(text.split())}\n")


def _stamp() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _appending(path: Path) -> TextIO:
    return path.open("a", encoding="utf-8")


def _rows(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Whole lines with what they say; a line that a kill tore is left out."""
    rows = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if line.endswith(b"\n") and isinstance(row, dict) and type(row.get("step")) is int:
            rows.append((line, row))
    return rows


def last_error(directory: Path) -> str:
    """What the last attempt ended with."""
    for line in reversed(_lines(directory / LOG)):
        said = line[20:]  # after the time
        if said.startswith("error: "):
            return said.removeprefix("error: ")
        if said.startswith("ended by "):
            return said.partition(";")[0]
        if said.startswith("run ") and (" begins" in said or " goes on" in said):
            return "it ended without a word: killed, or out of memory"
    printed = _lines(directory / OUTPUT)
    errors = [line for line in printed if line.startswith("error: ")]
    return (errors or printed or [""])[-1].removeprefix("error: ")


def tail(path: Path, lines: int) -> list[str]:
    return _lines(path)[-lines:]


def _lines(path: Path) -> list[str]:
    """The last ones of a file."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[1:] if size > TAIL else lines
