"""Tar archives: writing them with reproducible bytes, and reading them strictly.

Python's tarfile, and therefore webdataset, treats a header that it cannot parse as the end of the archive: a
flipped bit silently loses the rest of a shard. Here every header's checksum, every size, the padding between
members and the end-of-archive blocks are checked, and an error gives the offset.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipeline.errors import UserError, WorkFailed
from tnt.config import MOST
from tnt.untrusted.reading import BadFile, descriptor_of, json_of, whole_number

BLOCK = 512
END = bytes(2 * BLOCK)
# A read of this size covers the padding after a payload, a .cls member with its header, and the next header.
READ_BYTES = 8 * BLOCK

# POSIX ustar, GNU, and the older form. ReadAt(offset, count) returns fewer bytes only at the end of the file.
MAGICS = (b"ustar\x0000", b"ustar  \x00", bytes(8))
ReadAt = Callable[[int, int], bytes]

# As Python and GNU tar write it. Old programs padded with spaces, where a flipped bit can go unnoticed.
CHECKSUM = re.compile(rb"[0-7]{6}\x00 ")
OLD_CHECKSUM = re.compile(rb" *[0-7]{1,7}[\x00 ]*")

NUMBER = re.compile(rb"[0-9]{1,18}")
LARGEST = 10**18
LONGEST_END = 1 << 26  # bytes of zeros at an archive's end; tar programs fill up to some kilobytes
LONGEST_EXTENSION = 1 << 16  # bytes of an extended header; a name and a few numbers take some hundred
LONGEST_LABEL = 1 << 20  # bytes of a label's file; only one of JSON holds more than the number

IMAGE_EXTENSIONS = ("jpg", "jpeg", "jpe", "png", "webp")
LABEL_EXTENSIONS = ("cls", "txt", "json")  # the first that a sample has is used


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
        descriptor = descriptor_of(path)
    except FileNotFoundError:
        raise WorkFailed(f"{path} is missing") from None
    try:
        stop = os.fstat(descriptor).st_size if end is None else end
        yield from scan(lambda at, count: os.pread(descriptor, count, at), start, stop, str(path), old=old)
    finally:
        os.close(descriptor)


def scan(read: ReadAt, start: int, end: int, archive: str, *, old: bool = False) -> Iterator[Member]:
    """Members between two offsets; ArchiveDamage at the first error.

    `old` accepts checksums padded with spaces, as old tar programs write them.
    """
    position, renamed, resized = start, None, None
    buffer = _ReadBuffer(read, end)
    while True:
        block = buffer.take(position, BLOCK)
        if len(block) < BLOCK:
            raise ArchiveDamage(archive, position, "the archive ends without end marks (cut off?)")
        if _empty(block):
            if renamed is not None:
                raise ArchiveDamage(archive, position, "the archive ends between a long name and its member")
            return _check_end(read, position, end, archive)
        name, size, kind = _parse(block, position, archive, old)
        size = size if resized is None else resized
        payload, after = position + BLOCK, position + BLOCK + size
        following = payload + padded(size)
        if following > end:
            missing = f"member {_text(name)} of {size} bytes runs past the end (cut off?)"
            raise ArchiveDamage(archive, position, missing)
        if not _empty(buffer.take(after, following - after)):
            raise ArchiveDamage(archive, after, f"the padding after {_text(name)} is not empty")
        if kind in (b"0", b"\0", b"7"):
            yield Member(renamed or name, payload, size)
            renamed = resized = None
        elif kind in (b"x", b"L") and size > LONGEST_EXTENSION:
            raise ArchiveDamage(archive, position, f"an extended header of {size:,} bytes")
        elif kind == b"x":
            records = _pax_records(buffer.take(payload, size), payload, archive)
            renamed = records.get(b"path", renamed or b"")
            resized = whole_number(records[b"size"], 0, LARGEST) if b"size" in records else None
        elif kind == b"L":
            renamed = buffer.take(payload, size).split(b"\0")[0]
        elif kind not in (b"5", b"g"):
            what = f"{_text(name)} is no regular file (type {_text(kind)})"
            raise ArchiveDamage(archive, position, what)
        position = following


class _ReadBuffer:
    """Serves small reads from one larger read."""

    def __init__(self, read: ReadAt, end: int) -> None:
        self.read, self.end = read, end
        self.start, self.data = 0, b""

    def take(self, offset: int, count: int) -> bytes:
        if not self.start <= offset or offset + count > self.start + len(self.data):
            self.start = offset
            self.data = self.read(offset, max(0, min(max(count, READ_BYTES), self.end - offset)))
        return self.data[offset - self.start : offset - self.start + count]


def _parse(block: bytes, position: int, archive: str, old: bool) -> tuple[bytes, int, bytes]:
    """A member's name, size and type."""
    stored = block[148:156]
    if not (OLD_CHECKSUM if old else CHECKSUM).fullmatch(stored):
        raise ArchiveDamage(archive, position, "no tar header: its checksum field is malformed")
    if int(stored.strip(b"\0 "), 8) != sum(block) - sum(stored) + 256:  # type: ignore[text-number]
        raise ArchiveDamage(archive, position, "a tar header's checksum is wrong")
    if block[257:265] not in MAGICS:
        raise ArchiveDamage(archive, position, f"unknown tar format {block[257:265]!r}")
    name = block[:100].split(b"\0")[0]
    if block[257:265] == MAGICS[0] and (prefix := block[345:500].split(b"\0")[0]):
        name = prefix + b"/" + name
    digits = block[124:136]
    if digits[0] & 0x80:  # GNU's binary form of sizes of 8 GiB and more
        size = int.from_bytes(digits, "big") & ~(0x80 << 88)
    elif re.fullmatch(rb" *[0-7]+[\x00 ]*", digits):
        size = int(digits.strip(b"\0 "), 8)  # type: ignore[text-number]
    else:
        raise ArchiveDamage(archive, position, f"the size of {_text(name)} is malformed")
    return name, size, block[156:157]


def _pax_records(data: bytes, offset: int, archive: str) -> dict[bytes, bytes]:
    """POSIX extended headers: "<length> <keyword>=<value>\\n", the length counting the whole record."""
    records = {}
    while data:
        length, space, _ = data.partition(b" ")
        end = whole_number(length, 0, LARGEST) if space and NUMBER.fullmatch(length) else 0
        if not len(length) < end <= len(data):
            raise ArchiveDamage(archive, offset, "an extended header is malformed")
        record, data = data[:end], data[end:]
        keyword, equals, value = record[len(length) + 1 :].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise ArchiveDamage(archive, offset, "an extended header is malformed")
        records[keyword] = value[:-1]
    if not NUMBER.fullmatch(records.get(b"size", b"0")):
        raise ArchiveDamage(archive, offset, "an extended header is malformed")
    return records


def _check_end(read: ReadAt, position: int, end: int, archive: str) -> None:
    """From the first empty block to the end: at least two blocks, whole blocks, all empty."""
    if end - position < len(END) or (end - position) % BLOCK:
        raise ArchiveDamage(archive, position, "the end-of-archive marks are cut off")
    if end - position > LONGEST_END:
        raise ArchiveDamage(archive, position, f"{end - position:,} empty bytes follow")
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
    """Writes POSIX ustar without times, owners or users: the same samples give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.bytes = 0
        self.hash = hashlib.sha256()

    def add(self, name: bytes, payload: bytes) -> int:
        """Append a member; returns the offset of its payload."""
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
    """A ustar header. tarfile leaves the device numbers empty: with its headers all sets would have other
    bytes, and therefore other fingerprints."""
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


@dataclass(frozen=True)
class TarSample:
    """The members of a tar that share a key, as webdataset groups them."""

    key: bytes
    parts: dict[str, Member] = field(default_factory=dict)  # by lower-case extension

    def image(self, archive: str) -> Member:
        found = [self.parts[one] for one in IMAGE_EXTENSIONS if one in self.parts]
        if len(found) != 1:
            raise self._damage(archive, f"has {len(found)} images ({', '.join(IMAGE_EXTENSIONS)}), not one")
        return found[0]

    def label(self, read: ReadAt, archive: str) -> int:
        """The number in .cls or .txt, or the field "label" of .json."""
        extension = next((one for one in LABEL_EXTENSIONS if one in self.parts), None)
        if extension is None:
            raise self._damage(archive, f"has no label ({', '.join(LABEL_EXTENSIONS)})")
        member = self.parts[extension]
        if member.size > LONGEST_LABEL:
            raise self._damage(archive, f"has a label of {member.size:,} bytes")
        content = read(member.offset, member.size)
        if extension == "json":
            try:
                content = b"%d" % json_of(content, "", {"label": int})["label"]
            except BadFile:
                content = b""
        try:
            return whole_number(content, 0, MOST["classes"], f".{extension}")
        except BadFile as error:
            raise self._damage(archive, f"has no label of digits in its {error}") from None

    def _damage(self, archive: str, what: str) -> ArchiveDamage:
        at = min((member.offset for member in self.parts.values()), default=0)
        return ArchiveDamage(archive, at, f"sample {self.key.decode(errors='backslashreplace')!r} {what},")


def tar_samples(members: Iterable[Member], archive: str) -> Iterator[TarSample]:
    """Consecutive members with the same key, which ends at the first dot of the file's name.

    Files without an extension and webdataset's `__…__` files are ignored.
    """

    def named() -> Iterator[tuple[bytes, str, Member]]:
        for member in members:
            directory, slash, base = member.name.rpartition(b"/")
            stem, dot, extension = base.partition(b".")
            if dot and stem and not (base.startswith(b"__") and base.endswith(b"__")):
                yield directory + slash + stem, extension.decode("ascii", "replace").lower(), member

    for key, parts in itertools.groupby(named(), key=lambda one: one[0]):
        sample = TarSample(key)
        for _, extension, member in parts:
            if extension in sample.parts:
                raise ArchiveDamage(archive, member.offset, f"sample {key!r} has two members .{extension},")
            sample.parts[extension] = member
        yield sample
