"""Starts of a run: one process group at a time, and a line for each of them.

    runs/<id>/lease            locked while a trainer is alive; the kernel gives it back however that one ends
    runs/<id>/attempts.jsonl   who started when, where, at which step
    runs/<id>/run.json         which science and which data the run is of

A lock of POSIX is not inherited by forked workers, and network file systems carry it from node to node.
"""

import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import UserError, WorkFailed
from pipeline.files import publish_bytes
from pipeline.runs.directory import ATTEMPTS, LEASE, RUN, WEIGHTS

FLOCK = "hhqqi4x"  # struct flock of Linux on 64 bits: type, whence, start, length, process
FRUITLESS = 3  # starts in a row that brought no checkpoint: another would not either


@dataclass(frozen=True)
class Attempt:
    step: int  # where it began
    time: float
    world: int
    hosts: tuple[str, ...]
    job: str = ""
    restarts: int = 0


@contextmanager
def lease(directory: Path) -> Iterator[None]:
    """Hold the run, or say who does."""
    path = directory / LEASE
    with open(path, "a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise WorkFailed(
                f"run {directory.name} is being trained by {file.read().strip() or 'another process'}; "
                f"it can be watched in {directory / 'log.txt'}"
            ) from None
        file.truncate(0)
        job = os.environ.get("SLURM_JOB_ID")
        file.write(f"process {os.getpid()} on {socket.gethostname()}{f', job {job}' if job else ''}\n")
        file.flush()
        yield


def holder(directory: Path) -> str:
    """Who holds the run, as "process 4711 on node7, job 12"; "" where nobody does.

    It only asks: to try the lock would keep out a trainer that starts at that moment.
    """
    try:
        with open(directory / LEASE, "rb") as file:
            question = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, question))[0]
            if kind == fcntl.F_UNLCK:
                return ""
            return file.read().decode(errors="replace").strip() or "another process"
    except FileNotFoundError:
        return ""


def register(directory: Path, science: str, data: dict[str, str]) -> None:
    """Note what a run is of when it first starts; refused where another of the same science has begun on
    other data under the same path, and has not finished: it would begin from zero unseen."""
    path = directory / RUN
    if path.exists():
        return
    for other in directory.parent.glob(f"*/{RUN}"):
        try:
            begun = json.loads(other.read_text())
        except (OSError, ValueError):
            continue
        theirs = begun.get("data", {})
        unfinished = not (other.parent / WEIGHTS).exists()
        if begun.get("science") == science and theirs.get("root") == data["root"] and unfinished:
            differing = [name for name in data if theirs.get(name) != data[name]]
            changes = "; ".join(f"{name}: {theirs.get(name)} → {data[name]}" for name in differing)
            raise UserError(
                f"the data changed since run {other.parent.name} of the same config began ({changes}). "
                f"Put them back to go on with it, or remove {other.parent} to begin anew"
            )
    publish_bytes(path, (json.dumps({"science": science, "data": data}, indent=1) + "\n").encode())


def begin(directory: Path, attempt: Attempt) -> None:
    with open(directory / ATTEMPTS, "a") as file:
        file.write(json.dumps(asdict(attempt)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def attempts(directory: Path) -> list[Attempt]:
    """Oldest first; a line that a kill tore is left out."""
    path = directory / ATTEMPTS
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
            found.append(Attempt(**{**values, "hosts": tuple(values["hosts"])}))
        except (ValueError, TypeError, KeyError):
            continue
    return found


def fruitless(directory: Path, step: int) -> bool:
    """Whether the last attempts, this one with them, all began at the step that this one has come to."""
    last = attempts(directory)[-FRUITLESS:]
    return len(last) == FRUITLESS and all(attempt.step == step for attempt in last)


def now() -> float:
    return round(time.time(), 3)
