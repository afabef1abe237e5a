"""One shard's rows of a manifest: workers return them, journals store them, manifests join them."""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash

from pipeline.data.images.decode import StoredImage
from pipeline.data.shards.manifest import COLUMNS, MOST_INDEX, Manifest, Shard
from pipeline.errors import UserError, some
from pipeline.files import publish_bytes
from tnt.untrusted.reading import arrays_of, json_of, read_bytes

NAMED = 10  # how many damaged files an error lists
Notes = dict[str, str]  # key of a sample → what is to be reported about it


@dataclass
class RowCollector:
    """Collects a shard's rows, sample by sample."""

    rows: list[tuple[bytes | int, ...]] = field(default_factory=list)  # a manifest's, without `shard`
    flawed: Notes = field(default_factory=dict)  # kept, though the strict decoder refuses them
    skipped: Notes = field(default_factory=dict)  # damaged and left out
    turned: int = 0  # with an EXIF rotation, which is not applied

    def add(self, key: bytes, label: int, offset: int, image: StoredImage) -> None:
        payload = len(image.payload), xxhash.xxh3_64_intdigest(image.payload)
        self.rows.append((key, label, offset, *payload, image.width, image.height, image.kind))
        self.turned += image.turned
        if image.flaw:
            self.flawed[key.decode(errors="replace")] = image.flaw

    def finish(self, name: str, size: int, sha256: str) -> "ShardRows":
        keys = np.array([key for key, *_ in self.rows], "S")
        rows = np.array(self.rows, _row(keys))
        shard = Shard(name, len(rows), size, sha256)
        return ShardRows(shard, rows, self.flawed, self.skipped, self.turned)


@dataclass(frozen=True, eq=False)
class ShardRows:
    shard: Shard
    rows: np.ndarray  # a manifest's columns, without `shard`
    flawed: Notes = field(default_factory=dict)
    skipped: Notes = field(default_factory=dict)
    turned: int = 0

    @classmethod
    def of(cls, manifest: Manifest, index: int) -> Self:
        """One shard's part of a manifest."""
        samples = np.flatnonzero(manifest.shard == index)
        rows = np.empty(len(samples), _row(manifest.key))
        for name in _columns(rows):
            rows[name] = getattr(manifest, name)[samples]
        return cls(manifest.shards[index], rows)

    def write(self, path: Path, plan: str) -> None:
        """A journal, which says that the shard is finished: who continues `plan` does not write it again."""
        notes = {"flawed": self.flawed, "skipped": self.skipped, "turned": self.turned}
        head = json.dumps({"plan": plan, "shard": asdict(self.shard), **notes})
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, head=np.frombuffer(head.encode(), np.uint8), rows=self.rows)
        body = file.getvalue()
        publish_bytes(path, xxhash.xxh3_128_digest(body) + body)

    @classmethod
    def read(cls, path: Path, plan: str) -> Self | None:
        """A journal's rows; None if it is missing, damaged, or another plan's: the shard is written again."""
        stored = read_bytes(path, MOST_INDEX) if path.exists() else b""
        if not stored or xxhash.xxh3_128_digest(stored[16:]) != stored[:16]:
            return None
        arrays = arrays_of(stored[16:], str(path))
        head = json_of(arrays["head"].tobytes(), str(path), {"plan": str, "shard": dict})
        if head.pop("plan") != plan or "rows" not in arrays:  # another plan's, an earlier version's
            return None
        return cls(Shard(**head.pop("shard")), arrays["rows"], **head)


def join_shards(root: Path, split: str, classes: Sequence[str], shards: Sequence[ShardRows]) -> Manifest:
    rows = np.concatenate([part.rows for part in shards])
    if not len(rows):
        raise UserError(f"split {split!r} in {root} holds no samples")
    columns: dict[str, Any] = {name: rows[name] for name in _columns(rows)}
    return Manifest(
        root=root,
        split=split,
        classes=tuple(classes),
        shards=tuple(part.shard for part in shards),
        shard=np.repeat(np.arange(len(shards)), [part.shard.samples for part in shards]),
        **columns,
    )


def listed(damaged: Notes) -> str:
    return some([f"{key}: {why}" for key, why in damaged.items()], "; ", NAMED)


def _row(key: np.ndarray) -> np.dtype:
    others = [(name, kind) for name, kind in COLUMNS.items() if name != "shard"]
    return np.dtype([("key", key.dtype), *others])


def _columns(rows: np.ndarray) -> tuple[str, ...]:
    return rows.dtype.names or ()
