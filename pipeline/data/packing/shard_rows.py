"""The rows of one shard's samples: what a worker hands back, a journal keeps, and manifests are made of."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import xxhash

from pipeline.data.images.inspection import Inspection
from pipeline.data.images.jpeg import restart_rows
from pipeline.data.shards.manifest import COLUMNS, ImageKind, Manifest, Shard
from pipeline.errors import UserError
from pipeline.files import publish_bytes

NO_ROWS = np.zeros(0, np.uint32)
Notes = dict[str, str]  # key of a sample -> what there is to say of it


@dataclass(frozen=True, eq=False)
class ShardRows:
    shard: Shard
    key: list[bytes]
    columns: dict[str, np.ndarray]  # those of a manifest but `shard`
    row_count: np.ndarray  # MCU rows of each sample
    row_offset: np.ndarray  # of all samples, one after another
    flawed: Notes = field(default_factory=dict)  # kept, though decoders warn of them
    skipped: Notes = field(default_factory=dict)  # damaged and left out
    turned: int = 0  # with an EXIF rotation, which is not applied


@dataclass
class RowBook:
    """Rows as they are gathered, sample by sample."""

    key: list[bytes] = field(default_factory=list)
    fields: list[tuple[int, ...]] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    flawed: Notes = field(default_factory=dict)
    skipped: Notes = field(default_factory=dict)
    turned: int = 0

    def add(self, key: bytes, label: int, offset: int, payload: bytes, image: Inspection) -> None:
        hashed = xxhash.xxh3_64_intdigest(payload)
        self.key.append(key)
        self.fields.append((label, offset, len(payload), hashed, image.width, image.height, image.kind))
        self.rows.append(restart_rows(payload) if image.kind == ImageKind.JPEG else NO_ROWS)
        self.turned += image.turned
        if image.flaw:
            self.flawed[key.decode(errors="replace")] = image.flaw

    def close(self, name: str, size: int, sha256: str) -> ShardRows:
        names = [name for name in COLUMNS if name != "shard"]
        values = list(zip(*self.fields, strict=True)) or [()] * len(names)
        columns = {name: np.array(v, COLUMNS[name]) for name, v in zip(names, values, strict=True)}
        shard = Shard(name, len(self.key), size, sha256)
        row_count = np.array([len(row) for row in self.rows], np.int64)
        row_offset = np.concatenate([NO_ROWS, *self.rows])
        notes = self.flawed, self.skipped, self.turned
        return ShardRows(shard, self.key, columns, row_count, row_offset, *notes)


def shard_rows(manifest: Manifest, index: int) -> ShardRows:
    """One shard's part of a manifest."""
    samples = np.flatnonzero(manifest.shard == index)
    return ShardRows(
        shard=manifest.shards[index],
        key=manifest.key[samples].tolist(),
        columns={name: getattr(manifest, name)[samples] for name in COLUMNS if name != "shard"},
        row_count=np.diff(manifest.row_start)[samples],
        row_offset=np.concatenate([NO_ROWS, *(manifest.rows(sample) for sample in samples.tolist())]),
    )


def assemble(root: Path, split: str, classes: Sequence[str], shards: Sequence[ShardRows]) -> Manifest:
    if not any(rows.key for rows in shards):
        raise UserError(f"split {split!r} in {root} holds no samples")
    row_count = np.concatenate([part.row_count for part in shards])
    columns = {
        name: np.concatenate([part.columns[name] for part in shards]) for name in COLUMNS if name != "shard"
    }
    return Manifest(
        root=root,
        split=split,
        classes=tuple(classes),
        shards=tuple(part.shard for part in shards),
        key=np.array([key for part in shards for key in part.key]),
        shard=np.repeat(np.arange(len(shards)), [part.shard.samples for part in shards]),
        row_start=np.concatenate([[0], np.cumsum(row_count)]),
        row_offset=np.concatenate([part.row_offset for part in shards]),
        **columns,
    )


@dataclass(frozen=True, eq=False)
class Journal:
    """What makes a finished shard known as finished after the process that wrote it was killed."""

    plan: str  # which plan the shard belongs to
    rows: ShardRows

    def write(self, path: Path) -> None:
        rows = self.rows
        head = {
            "plan": self.plan,
            "shard": asdict(rows.shard),
            "flawed": rows.flawed,
            "skipped": rows.skipped,
            "turned": rows.turned,
        }
        file = io.BytesIO()
        np.savez(
            file,
            allow_pickle=False,
            head=np.frombuffer(json.dumps(head).encode(), np.uint8),
            key=np.array(rows.key, "S"),
            row_count=rows.row_count,
            row_offset=rows.row_offset,
            **rows.columns,
        )
        body = file.getvalue()
        publish_bytes(path, xxhash.xxh3_128_digest(body) + body)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The journal, or None where there is none that is whole: its shard is then made again."""
        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            return None
        if xxhash.xxh3_128_digest(stored[16:]) != stored[:16]:
            return None
        with np.load(io.BytesIO(stored[16:]), allow_pickle=False) as arrays:
            head = json.loads(arrays["head"].tobytes())
            rows = ShardRows(
                shard=Shard(**head["shard"]),
                key=arrays["key"].tolist(),
                columns={name: arrays[name] for name in COLUMNS if name != "shard"},
                row_count=arrays["row_count"],
                row_offset=arrays["row_offset"],
                flawed=head["flawed"],
                skipped=head["skipped"],
                turned=head["turned"],
            )
        return cls(head["plan"], rows)
