"""One shard's rows of a manifest: workers return them, journals store them, manifests join them."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash

from pipeline.data.images.decode import Inspection
from pipeline.data.shards.manifest import COLUMNS, Manifest, Shard
from pipeline.errors import UserError
from pipeline.files import publish_bytes

Notes = dict[str, str]  # key of a sample → what is to be reported about it


@dataclass(frozen=True, eq=False)
class ShardRows:
    shard: Shard
    key: list[bytes]
    columns: dict[str, np.ndarray]  # a manifest's, without `shard`
    flawed: Notes = field(default_factory=dict)  # kept, though the strict decoder refuses them
    skipped: Notes = field(default_factory=dict)  # damaged and left out
    turned: int = 0  # with an EXIF rotation, which is not applied


@dataclass
class RowCollector:
    """Collects a shard's rows, sample by sample."""

    key: list[bytes] = field(default_factory=list)
    fields: list[tuple[int, ...]] = field(default_factory=list)
    flawed: Notes = field(default_factory=dict)
    skipped: Notes = field(default_factory=dict)
    turned: int = 0

    def add(self, key: bytes, label: int, offset: int, payload: bytes, image: Inspection) -> None:
        hashed = xxhash.xxh3_64_intdigest(payload)
        self.key.append(key)
        self.fields.append((label, offset, len(payload), hashed, image.width, image.height, image.kind))
        self.turned += image.turned
        if image.flaw:
            self.flawed[key.decode(errors="replace")] = image.flaw

    def rows(self, name: str, size: int, sha256: str) -> ShardRows:
        names = [name for name in COLUMNS if name != "shard"]
        values = list(zip(*self.fields, strict=True)) or [()] * len(names)
        columns = {name: np.array(v, COLUMNS[name]) for name, v in zip(names, values, strict=True)}
        shard = Shard(name, len(self.key), size, sha256)
        return ShardRows(shard, self.key, columns, self.flawed, self.skipped, self.turned)


def rows_of_shard(manifest: Manifest, index: int) -> ShardRows:
    """One shard's part of a manifest."""
    samples = np.flatnonzero(manifest.shard == index)
    return ShardRows(
        shard=manifest.shards[index],
        key=manifest.key[samples].tolist(),
        columns={name: getattr(manifest, name)[samples] for name in COLUMNS if name != "shard"},
    )


def join_shards(root: Path, split: str, classes: Sequence[str], shards: Sequence[ShardRows]) -> Manifest:
    if not any(rows.key for rows in shards):
        raise UserError(f"split {split!r} in {root} holds no samples")
    columns: dict[str, Any] = {
        name: np.concatenate([part.columns[name] for part in shards]) for name in COLUMNS if name != "shard"
    }
    return Manifest(
        root=root,
        split=split,
        classes=tuple(classes),
        shards=tuple(part.shard for part in shards),
        key=np.array([key for part in shards for key in part.key]),
        shard=np.repeat(np.arange(len(shards)), [part.shard.samples for part in shards]),
        **columns,
    )


@dataclass(frozen=True, eq=False)
class ShardJournal:
    """Records that a shard is finished: a command that continues after a kill does not write it again."""

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
            **rows.columns,
        )
        body = file.getvalue()
        publish_bytes(path, xxhash.xxh3_128_digest(body) + body)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The journal, or None if there is none or it is incomplete: its shard is then written again."""
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
                flawed=head["flawed"],
                skipped=head["skipped"],
                turned=head["turned"],
            )
        return cls(head["plan"], rows)
