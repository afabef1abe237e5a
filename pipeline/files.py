"""Files that appear whole, locks, files of JSON lines, and hashes of files.

A whole file is written under a temporary name, flushed to the disk and renamed.

A lock is one of POSIX (`lockf`), the kind that most network file systems carry from node to node, that a
process can ask about without taking it, and that forked workers do not inherit. The kernel gives it back
when its process ends, and also when that process closes any descriptor of the file; so this module notes
which files its process has locked, and never opens one of them a second time.
"""

import errno
import fcntl
import hashlib
import json
import os
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from pipeline.errors import WorkFailed
from tnt.untrusted.reading import (
    BadFile,
    check_regular,
    json_of,
    kept_if_regular,
    open_regular,
    read_bytes,
)
from tnt.untrusted.writing import storing

PACKAGE = Path(__file__).resolve().parent  # this folder; its parent is what makes `pipeline` importable
PARTIAL = ".partial"
FLOCK = "hhqqi4x"  # struct flock of Linux on 64 bits: type, whence, start, length, process
MOST_LINES = 1 << 30  # bytes of a file of JSON lines
LEASE_BYTES = 1 << 12  # of what a lock's holder wrote into its file
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


# The files that are locked here, as `_key` names them: their descriptors, -1 while they are waited for.
_locked: dict[tuple[int, int, int], int] = {}
_changed = threading.Condition()  # held while `_locked` is read or written


def partial_name(path: Path) -> Path:
    """The temporary name beside `path`; the process number keeps two writers apart."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")


@contextmanager
def published(path: Path, size: int = 0) -> Iterator[BinaryIO]:
    """A binary file that gets the name `path` when the block ends well, and vanishes when it does not.

    `size`: its bytes, where they are known; a full disk is told with them.
    """
    partial = partial_name(path)
    with storing(path, size):
        try:
            with open(partial, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    flush_directory(path.parent)


def flush_directory(path: Path) -> None:
    """Make a rename in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_bytes(path: Path, data: bytes | memoryview) -> None:
    with published(path, len(data)) as file:
        file.write(data)


def umask_for(folder: Path) -> int:
    """Of files in a folder of runs: they are their owner's, or its group's where it hands its group down."""
    known = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    mode = known.stat().st_mode
    return 0o007 if mode & stat.S_ISGID and mode & stat.S_IWGRP else 0o077


def check_writable(folder: Path, setting: str) -> None:
    """Make a folder where it is missing; one that takes no files is refused by the setting that names it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise WorkFailed(f"{setting}={folder} cannot be written to: {error.strerror}") from error


def move_aside(path: Path) -> None:
    """Move a file or a folder, if there is one, into `earlier/` beside it, under its name and the time."""
    if path.exists():
        folder = path.parent / "earlier"
        folder.mkdir(exist_ok=True)
        path.rename(folder / f"{path.stem}-{time.time_ns()}{path.suffix}")


class LockedElsewhere(Exception):
    """Another process, or another thread of this one, holds the lock."""


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[TextIO]:
    """Hold the lock of a file, which is made where it is missing; what is yielded reads and writes it.

    Where another holds it, `waiting` is called and the lock waited for; without `waiting`, LockedElsewhere.
    """
    with _changed:
        if not path.exists():
            open(path, "a").close()
        key = _key(path)
        while key in _locked:
            if waiting is None:
                raise LockedElsewhere(path)
            waiting()
            _changed.wait()
        _locked[key] = -1
    try:
        with open(path, "r+", encoding="utf-8") as file:
            _lock(file, waiting)
            _locked[key] = file.fileno()
            yield file
    finally:
        with _changed:
            del _locked[key]
            _changed.notify_all()


def locked_by(path: Path) -> str | None:
    """What the holder of a file's lock, which may be this process, wrote into it; None where nobody holds it.

    It only asks: to try the lock would keep out whoever wants it at that moment.
    """
    question = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    with _changed:
        try:
            size = os.stat(path).st_size
            if (mine := _locked.get(_key(path))) is not None:
                return os.pread(mine, size, 0).decode() if mine >= 0 else ""
            with open_regular(path) as file:
                answer = fcntl.fcntl(file, fcntl.F_GETLK, question)
                free = struct.unpack(FLOCK, answer)[0] == fcntl.F_UNLCK
                return None if free else file.read(LEASE_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            _refuse_without_locks(error, path)
            raise


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line of JSON and flush it to the disk; a line that a crash cut off is not joined to it."""
    line = json.dumps(row) + "\n"
    with storing(path, len(line)), open(path, "ab+", opener=_private) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def rows(path: Path) -> list[dict[str, Any]]:
    """What the lines of a file of JSON lines say; nothing where there is no file."""
    return [row for _, row in whole_lines(read_bytes(path, MOST_LINES))] if path.exists() else []


def whole_lines(content: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each line with what it says; a line that is being written, or that a crash cut off, is left out."""
    for line in content.splitlines(keepends=True):
        try:
            row = json_of(line, "", dict)
        except BadFile:
            continue
        if line.endswith(b"\n"):
            yield line, row


def sha256(path: Path) -> str:
    with open_regular(path) as file:
        return sha256_of(file)


def sha256_of(file: BufferedReader | FileIO) -> str:
    """Of an opened file, from where it stands to its end."""
    return hashlib.file_digest(file, "sha256").hexdigest()


def _lock(file: TextIO, waiting: Callable[[], None] | None) -> None:
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            if waiting is None:
                raise LockedElsewhere(file.name) from error
            waiting()
            fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError as error:
        _refuse_without_locks(error, Path(file.name))
        raise


def _refuse_without_locks(error: OSError, path: Path) -> None:
    if error.errno in NO_LOCKS:
        raise WorkFailed(
            f"{path.parent} is on a file system without locks ({error.strerror}): two processes could write "
            "there at once. Use another file system, or have it mounted with locks (Lustre: -o flock)"
        ) from error


def _key(path: Path) -> tuple[int, int, int]:
    """Of a file and this process: a forked child inherits the note of a lock, not the lock."""
    found = os.stat(path)
    check_regular(path, found.st_mode)
    return os.getpid(), found.st_dev, found.st_ino


def to_add(path: str, flags: int, mode: int = 0o666) -> int:
    """An opener for files that grow, which may have been replaced by something else."""
    return kept_if_regular(os.open(path, flags | os.O_NONBLOCK, mode), path)


def _private(path: str, flags: int) -> int:
    return to_add(path, flags, 0o666 & ~umask_for(Path(path).parent))
