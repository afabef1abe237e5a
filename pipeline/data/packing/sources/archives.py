"""Compressed tars, unpacked into memory: for the small sets' archives of a few hundred megabytes."""

import gzip
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.shards.tar import Member, scan
from pipeline.errors import WorkFailed
from tnt.untrusted.reading import open_regular

# Compressed images hardly shrink again; text and pickled arrays do, a little.
RATIO, ALLOWANCE = 20, 1 << 26
PIECE = 1 << 20


@dataclass(frozen=True, eq=False)
class UnpackedTar:
    path: Path
    data: bytes
    members: dict[str, Member]

    @classmethod
    def read(cls, path: Path) -> "UnpackedTar":
        """Unpack the whole archive, so that an incomplete or damaged download is noticed."""
        try:
            with open_regular(path) as file, gzip.open(file) as unpacked:
                most = ALLOWANCE + RATIO * os.fstat(file.fileno()).st_size
                pieces = []
                while piece := unpacked.read(PIECE):
                    pieces.append(piece)
                    if len(pieces) * PIECE > most:
                        raise OSError(f"it unpacks to more than {most:,} bytes")
        except (OSError, EOFError, zlib.error) as error:
            raise WorkFailed(f"{path} is damaged: {error}; download it again") from None
        data = b"".join(pieces)
        found = scan(lambda at, count: data[at : at + count], 0, len(data), str(path), old=True)
        names = {member.name.decode("utf-8", "replace").removeprefix("./"): member for member in found}
        return cls(path, data, names)

    def payload(self, name: str) -> bytes:
        if name not in self.members:
            raise WorkFailed(f"{self.path} has no member {name}")
        member = self.members[name]
        return self.data[member.offset : member.offset + member.size]
