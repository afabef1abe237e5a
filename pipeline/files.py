"""Files that appear whole: written under a temporary name, flushed to the disk, renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PACKAGE = Path(__file__).resolve().parent  # this folder; its parent is what makes `pipeline` importable
PARTIAL = ".partial"


def partial_name(path: Path) -> Path:
    """The temporary name beside `path`; the process number keeps two writers apart."""
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")


@contextmanager
def published(path: Path) -> Iterator[BinaryIO]:
    """A binary file that gets the name `path` when the block ends well, and vanishes when it does not."""
    partial = partial_name(path)
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
    with published(path) as file:
        file.write(data)
