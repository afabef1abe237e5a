"""Payloads within archives: read in place, or from a compressed archive that was unpacked into memory."""

import gzip
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.data.shards.tar import Member, scan
from pipeline.errors import WorkFailed


@dataclass(frozen=True, eq=False)
class FileRanges:
    """File, offset and size of each payload of a split."""

    files: Sequence[Path]
    file: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    # The archives' open descriptors; each process that reads has its own copy of this table.
    open: dict[int, int] = field(default_factory=dict)

    def read(self, row: int) -> bytes:
        file, offset, size = int(self.file[row]), int(self.offset[row]), int(self.size[row])
        if file not in self.open:
            self.open[file] = os.open(self.files[file], os.O_RDONLY)
        parts = []
        while size:
            part = os.pread(self.open[file], size, offset)
            if not part:
                raise WorkFailed(f"{self.files[file]} has become shorter since it was listed")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)


@dataclass(frozen=True, eq=False)
class UnpackedTar:
    """A compressed tar, unpacked into memory: for the small sets' archives of a few hundred megabytes."""

    path: Path
    data: bytes
    members: dict[str, Member]

    @classmethod
    def read(cls, path: Path) -> "UnpackedTar":
        """Unpack the whole archive, so that an incomplete or damaged download is noticed."""
        try:
            data = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise WorkFailed(f"{path} is damaged: {error}; download it again") from None
        found = scan(lambda at, count: data[at : at + count], 0, len(data), str(path), old=True)
        members = {}
        for member in found:
            name = member.name.decode("utf-8", "replace")
            members[name.removeprefix("./")] = member
        return cls(path, data, members)

    def payload(self, name: str) -> bytes:
        if name not in self.members:
            raise WorkFailed(f"{self.path} has no member {name}")
        member = self.members[name]
        return self.data[member.offset : member.offset + member.size]
