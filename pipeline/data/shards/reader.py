"""Payloads from shard files: read at their offsets, checked against their hashes, retried if that fails.

A flipped bit in a JPEG's data decodes to a wrong picture without an error in 99 of 100 cases, and a damaged
tar header ends an archive early without an error. Therefore the manifest gives the place and the hash of each
payload, and every payload is checked.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import xxhash

from pipeline.errors import WorkFailed
from tnt.untrusted.reading import BadFile, descriptor_of

OPEN_FILES = 512  # below the usual limit of 1024 per process
# Seconds before each further attempt: errors of network file systems often last only a moment.
PAUSES = (0.0, 0.2, 1.0)


class Unreadable(WorkFailed):
    """The bytes cannot be read, or are not those that were packed."""


class ShardFiles:
    """The shards of a split, opened when needed and kept open; the one opened first is closed first."""

    def __init__(self, root: Path | str, names: Sequence[str], pauses: Sequence[float] = PAUSES) -> None:
        self.root, self.names = Path(root), names
        self._attempts = (None, *pauses)
        self._open: dict[int, int] = {}
        self._buffer = memoryview(bytearray(1 << 18))

    def read(self, shard: int, offset: int, length: int, xxh3: int) -> memoryview:
        """The payload; the view is valid until the next call."""
        reason = ""
        for pause in self._attempts:
            if pause is not None:
                time.sleep(pause)
                self._forget(shard, offset, length)
            try:
                view = self._read(shard, offset, length)
            except OSError as error:
                reason = f"{self.names[shard]} cannot be read: {error.strerror or error}"
                continue
            except BadFile as error:
                raise Unreadable(str(error)) from None
            if len(view) < length:
                reason = f"{self.names[shard]} ends early: {len(view)} of {length} bytes at {offset}"
            elif xxhash.xxh3_64_intdigest(view) != xxh3:
                reason = f"{self.names[shard]} is damaged: {length} bytes at {offset} have another hash"
            else:
                return view
        raise Unreadable(reason)

    def announce(self, shard: int, offset: int, length: int) -> None:
        """Ask the kernel to read ahead; a shard that cannot be opened is reported when it is read."""
        try:
            os.posix_fadvise(self._file(shard), offset, length, os.POSIX_FADV_WILLNEED)
        except (OSError, BadFile):
            self._close(shard)

    def close(self) -> None:
        for shard in list(self._open):
            self._close(shard)

    def _read(self, shard: int, offset: int, length: int) -> memoryview:
        """The bytes, or as many as there are before the end of the shard."""
        if len(self._buffer) < length:
            self._buffer = memoryview(bytearray(length))
        view, file = self._buffer[:length], self._file(shard)
        got = more = os.preadv(file, [view], offset)
        while more and got < length:
            more = os.preadv(file, [view[got:]], offset + got)
            got += more
        return view if got == length else view[:got]

    def _file(self, shard: int) -> int:
        file = self._open.get(shard)
        if file is None:
            if len(self._open) >= OPEN_FILES:
                self._close(next(iter(self._open)))
            file = self._open[shard] = descriptor_of(self.root / self.names[shard])
        return file

    def _forget(self, shard: int, offset: int, length: int) -> None:
        """Close the file and drop its cached pages, so that the next attempt reads from the storage again."""
        if shard in self._open:
            os.posix_fadvise(self._open[shard], offset, length, os.POSIX_FADV_DONTNEED)
            self._close(shard)

    def _close(self, shard: int) -> None:
        if (file := self._open.pop(shard, None)) is not None:
            os.close(file)
