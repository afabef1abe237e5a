"""Tar archives, written the same way every time and read so strictly that nothing ends early unseen.

Python's tarfile, and webdataset with it, takes a header it cannot parse for the end of the archive: one
flipped bit loses the rest of a shard without a word. Here every header's checksum, every size, the padding
between members and the end-of-archive blocks are checked, and what is wrong is named with its offset.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipeline.errors import UserError, WorkFailed

BLOCK = 512
END = bytes(2 * BLOCK)
# One read covers the padding after a payload, a small member (.cls) with its header, and the next header.
WINDOW = 8 * BLOCK

# POSIX ustar, GNU, and the form before both. Reading at (offset, count) gives fewer bytes only at the end.
MAGICS = (b"ustar\x0000", b"ustar  \x00", bytes(8))
ReadAt = Callable[[int, int], bytes]

# Exactly as Python and GNU tar write it; old programs padded with spaces, which hides a flipped bit.
CHECKSUM = re.compile(rb"[0-7]{6}\x00 ")
OLD_CHECKSUM = re.compile(rb" *[0-7]{1,7}[\x00 ]*")


class ArchiveDamage(WorkFailed):
    def __init__(self, archive: str, offset: int, reason: str) -> None:
        super().__init__(f"{archive}: {reason} at byte {offset}")
        self.archive, self.offset, self.reason = archive, offset, reason

    def __reduce__(self) -> tuple[type, tuple[str, int, str]]:
        return ArchiveDamage, (self.archive, self.offset, self.reason)


class Member(NamedTuple):
    name: bytes
    offset: int  # of the payload's first byte
    size: int


def scan_file(path: Path, start: int = 0, end: int | None = None, *, old: bool = False) -> Iterator[Member]:
    """The regular files of a tar, or of a tar that lies within another one between two offsets."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise WorkFailed(f"{path} is missing") from None
    try:
        stop = os.fstat(descriptor).st_size if end is None else end
        yield from scan(lambda at, count: os.pread(descriptor, count, at), start, stop, str(path), old=old)
    finally:
        os.close(descriptor)


def scan(read: ReadAt, start: int, end: int, archive: str, *, old: bool = False) -> Iterator[Member]:
    """Members between two offsets; ArchiveDamage at the first thing that is not as it must be.

    `old` admits checksums padded with spaces, as archives from the last century's programs have them.
    """
    position, renamed, resized = start, None, None
    window = _Window(read, end)
    while True:
        block = window.take(position, BLOCK)
        if len(block) < BLOCK:
            raise ArchiveDamage(archive, position, "the archive ends without its end marks (cut off?)")
        if _empty(block):
            if renamed is not None:
                raise ArchiveDamage(archive, position, "the archive ends between a long name and its member")
            return _check_end(read, position, end, archive)
        header = _parse(block, position, archive, old)
        size = header.size if resized is None else resized
        payload, after = position + BLOCK, position + BLOCK + size
        following = payload + padded(size)
        if following > end:
            missing = f"member {_text(header.name)} of {size} bytes runs past the end (cut off?)"
            raise ArchiveDamage(archive, position, missing)
        if not _empty(window.take(after, following - after)):
            raise ArchiveDamage(archive, after, f"the padding after {_text(header.name)} is not empty")
        if header.kind in (b"0", b"\0", b"7"):
            yield Member(renamed or header.name, payload, size)
            renamed = resized = None
        elif header.kind == b"x":
            records = _pax_records(window.take(payload, size), payload, archive)
            renamed = records.get(b"path", renamed or b"")
            resized = int(records[b"size"]) if b"size" in records else None
        elif header.kind == b"L":
            renamed = window.take(payload, size).split(b"\0")[0]
        elif header.kind not in (b"5", b"g"):
            what = f"{_text(header.name)} is no regular file (type {_text(header.kind)})"
            raise ArchiveDamage(archive, position, what)
        position = following


class _Window:
    """Small reads out of one larger one."""

    def __init__(self, read: ReadAt, end: int) -> None:
        self.read, self.end = read, end
        self.start, self.data = 0, b""

    def take(self, offset: int, count: int) -> bytes:
        if not self.start <= offset or offset + count > self.start + len(self.data):
            self.start = offset
            self.data = self.read(offset, max(0, min(max(count, WINDOW), self.end - offset)))
        return self.data[offset - self.start : offset - self.start + count]


class _Header(NamedTuple):
    name: bytes
    size: int
    kind: bytes


def _parse(block: bytes, position: int, archive: str, old: bool) -> _Header:
    stored = block[148:156]
    if not (OLD_CHECKSUM if old else CHECKSUM).fullmatch(stored):
        raise ArchiveDamage(archive, position, "no tar header: its checksum field is malformed")
    if int(stored.strip(b"\0 "), 8) != sum(block) - sum(stored) + 8 * ord(" "):
        raise ArchiveDamage(archive, position, "a tar header's checksum is wrong")
    if block[257:265] not in MAGICS:
        raise ArchiveDamage(archive, position, f"unknown tar format {block[257:265]!r}")
    name = block[:100].split(b"\0")[0]
    if block[257:265] == MAGICS[0] and (prefix := block[345:500].split(b"\0")[0]):
        name = prefix + b"/" + name
    digits = block[124:136]
    if digits[0] & 0x80:  # GNU's binary form of sizes from 8 GiB
        size = int.from_bytes(digits, "big") & ~(0x80 << 88)
    elif re.fullmatch(rb" *[0-7]+[\x00 ]*", digits):
        size = int(digits.strip(b"\0 "), 8)
    else:
        raise ArchiveDamage(archive, position, f"the size of {_text(name)} is malformed")
    return _Header(name, size, block[156:157])


def _pax_records(data: bytes, offset: int, archive: str) -> dict[bytes, bytes]:
    """POSIX extended headers: "<length> <keyword>=<value>\\n", the length counting the whole record."""
    records = {}
    while data:
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or not len(length) < int(length) <= len(data):
            raise ArchiveDamage(archive, offset, "an extended header is malformed")
        record, data = data[: int(length)], data[int(length) :]
        keyword, equals, value = record[len(length) + 1 :].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ArchiveDamage(archive, offset, "an extended header is malformed")
        records[keyword] = value[:-1]
    if not records.get(b"size", b"0").isdigit():
        raise ArchiveDamage(archive, offset, "an extended header is malformed")
    return records


def _check_end(read: ReadAt, position: int, end: int, archive: str) -> None:
    """From the first empty block to the end: at least two blocks, whole blocks, all empty."""
    if end - position < len(END) or (end - position) % BLOCK:
        raise ArchiveDamage(archive, position, "the end-of-archive marks are cut off")
    for at in range(position, end, 1 << 20):
        chunk = read(at, min(1 << 20, end - at))
        if len(chunk) != min(1 << 20, end - at):
            raise ArchiveDamage(archive, at, "the archive shrank while it was read")
        if used := len(chunk.lstrip(b"\0")):
            raise ArchiveDamage(archive, at + len(chunk) - used, "data follow an end-of-archive mark")


def _empty(data: bytes) -> bool:
    return data.count(0) == len(data)


def _text(name: bytes) -> str:
    return repr(name.decode(errors="backslashreplace"))


def padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


class ArchiveWriter:
    """POSIX ustar with nothing in it but names and payloads: the same samples give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.bytes = 0
        self.hash = hashlib.sha256()

    def add(self, name: bytes, payload: bytes) -> int:
        """Append a member; gives the offset of its payload."""
        self._put(member_header(name, len(payload)))
        offset = self.bytes
        self._put(payload)
        self._put(bytes(-len(payload) % BLOCK))
        return offset

    def close(self) -> None:
        self._put(END)

    def _put(self, data: bytes) -> None:
        self.file.write(data)
        self.hash.update(data)
        self.bytes += len(data)


def member_header(name: bytes, size: int) -> bytes:
    base, prefix = name, b""
    if len(name) > 100:
        cut = name.find(b"/", len(name) - 101)
        base, prefix = name[cut + 1 :], name[: max(cut, 0)]
        if not 0 < cut <= 155 or not base:
            raise UserError(f"the name {_text(name)} is too long for a tar header")
    owner = b"0000000\0"  # also the group, and the two device numbers
    fields = (
        *(base.ljust(100, b"\0"), b"0000644\0", owner, owner, b"%011o\0" % size, b"0" * 11 + b"\0"),
        *(b" " * 8, b"0", bytes(100), MAGICS[0], bytes(64), owner, owner, prefix.ljust(155, b"\0")),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
