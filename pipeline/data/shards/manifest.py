"""The manifest of a split: what each shard holds, where each sample lies, and the hashes of both.

On disk `<split>.manifest.json` (classes, shards, fingerprint) stands beside `<split>.index.npz` (one row
per sample). Reading checks that both belong together and are undamaged; everything that a reader of samples
needs is in memory afterwards. Width and height are those of the stored pixels: EXIF orientation is ignored,
as timm's and DeiT's training code ignore it, everywhere in this project.
"""

import hashlib
import io
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash

from pipeline.data.images.decode import ImageKind
from pipeline.errors import UserError, WorkFailed
from pipeline.files import publish_bytes
from tnt.untrusted.reading import BadFile, arrays_of, other_than, read_bytes, read_json

FORMAT = 1
HEADER = {
    "classes": [str],
    "shards": [{"name": str, "samples": int, "bytes": int, "sha256": str}],
    "samples": int,
    "index": str,
    "fingerprint": str,
}
MOST_INDEX = 1 << 32  # bytes: ImageNet-21k, 14 million samples, takes an eighth

# Little-endian, so that the fingerprint is the same on every machine. `key` is fixed-width bytes.
COLUMNS = {
    "label": "<i4",
    "shard": "<i4",
    "offset": "<i8",
    "length": "<i4",
    "xxh3": "<u8",
    "width": "<i4",
    "height": "<i4",
    "kind": "u1",
}
# Two more columns of sets that earlier versions repacked with restart markers. They are part of such a set's
# fingerprint and are otherwise not used; for all other sets they are all zeros and empty.
RESTART_ROWS = ("row_start", "row_offset")


@dataclass(frozen=True)
class Shard:
    name: str
    samples: int
    bytes: int
    sha256: str

    def problem(self, root: Path) -> str:
        """A line if it is missing there or has another size than recorded: a quick check."""
        try:
            size = os.stat(root / self.name).st_size
        except FileNotFoundError:
            return f"{self.name} is missing"
        if size == self.bytes:
            return ""
        what = "short" if size < self.bytes else "long"
        return f"{self.name} is {what}: {size} bytes where {self.bytes} are recorded"


@dataclass(frozen=True, eq=False, repr=False)
class Manifest:
    """One row per sample, in shard order and then file order; construction checks and fingerprints it."""

    root: Path
    split: str
    classes: tuple[str, ...]  # names in label order
    shards: tuple[Shard, ...]
    key: np.ndarray  # fixed-width bytes
    label: np.ndarray
    shard: np.ndarray  # index into shards
    offset: np.ndarray  # the payload's first byte within its shard
    length: np.ndarray  # the payload's bytes
    xxh3: np.ndarray  # xxh3_64 of the payload
    width: np.ndarray
    height: np.ndarray
    kind: np.ndarray  # ImageKind
    restart_rows: dict[str, np.ndarray] = field(default_factory=dict)  # RESTART_ROWS, of a repacked set
    # SHA-256 over everything above but root: the same data gives the same value on every machine.
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "root", Path(self.root))
        put(self, "key", _narrow(self.key))
        for name, dtype in COLUMNS.items():
            put(self, name, np.ascontiguousarray(getattr(self, name), dtype=dtype))
        if problem := self._inconsistency():
            raise UserError(f"manifest of split {self.split!r} in {self.root}: {problem}")
        put(self, "fingerprint", self._fingerprint())

    def __len__(self) -> int:
        return len(self.key)

    def is_sound(self, sample: int, payload: bytes) -> bool:
        """Whether these bytes are the sample's payload."""
        same_length = len(payload) == self.length[sample]
        return bool(same_length and xxhash.xxh3_64_intdigest(payload) == int(self.xxh3[sample]))

    def path(self, shard: int) -> Path:
        return self.root / self.shards[shard].name

    def name(self, sample: int) -> str:
        """For a message."""
        key = self.key[sample].decode(errors="replace")
        return f"sample {key!r} of {self.shards[self.shard[sample]].name}"

    @classmethod
    def read(cls, root: Path | str, split: str) -> Self:
        """The manifest as written, or a UserError that says which file is missing, old or damaged."""
        root = Path(root)
        header = _read_header(root, split)
        columns = _read_index(index_path(root, split), header["index"])
        try:
            shards = tuple(Shard(**shard) for shard in header["shards"])
            manifest = cls(root=root, split=split, classes=tuple(header["classes"]), shards=shards, **columns)
        except (TypeError, ValueError, OverflowError) as error:
            raise _damaged(manifest_path(root, split), str(error)) from error
        if manifest.fingerprint != header["fingerprint"] or header["samples"] != len(manifest):
            raise _damaged(manifest_path(root, split), "it does not match its own fingerprint")
        return manifest

    @classmethod
    def read_all(cls, root: Path) -> list[Self]:
        """The manifests of all splits of a set."""
        if not root.is_dir():
            raise UserError(f"{root} is not a directory")
        splits = sorted(path.name.removesuffix(".manifest.json") for path in root.glob("*.manifest.json"))
        if not splits:
            raise UserError(
                f"{root} has no manifest: index its tars with `python pipeline/shards.py index {root}`"
            )
        return [cls.read(root, split) for split in splits]

    def write(self) -> None:
        """Write the index, then the manifest with its hash: readers get a matching pair or an error."""
        keys, counts = np.unique(self.key, return_counts=True)
        if (counts > 1).any():
            raise UserError(
                f"split {self.split!r} in {self.root}: key {keys[counts > 1][0].decode(errors='replace')!r} "
                f"stands for {counts.max()} samples; keys must be unique"
            )
        index = io.BytesIO()
        np.savez(index, allow_pickle=False, **self._columns(), **self.restart_rows)
        publish_bytes(index_path(self.root, self.split), index.getbuffer())
        hashed = xxhash.xxh3_128_hexdigest(index.getbuffer())
        header = self._header() | {"index": hashed, "fingerprint": self.fingerprint}
        text = json.dumps(header, indent=1, ensure_ascii=False) + "\n"
        publish_bytes(manifest_path(self.root, self.split), text.encode())

    def check_files(self) -> list[str]:
        """One line per shard that is missing or has another size than recorded."""
        return [problem for shard in self.shards if (problem := shard.problem(self.root))]

    def _columns(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in ("key", *COLUMNS)}

    def _header(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "split": self.split,
            "samples": len(self),
            "classes": list(self.classes),
            "shards": [asdict(shard) for shard in self.shards],
        }

    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        no_rows = dict(zip(RESTART_ROWS, (np.zeros(len(self) + 1, "<i8"), np.zeros(0, "<u4")), strict=True))
        for name, column in (self._columns() | (self.restart_rows or no_rows)).items():
            digest.update(f"{name} {column.dtype.str} {column.shape}\n".encode())
            digest.update(column.data.cast("B") if column.size else b"")
        content = self._header() | {"columns": digest.hexdigest()}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _inconsistency(self) -> str | None:
        """The first contradiction found. All checks take a few hundredths of a second for ImageNet."""
        count = len(self)
        for name in COLUMNS:
            if getattr(self, name).shape != (count,):
                return f"column {name} has shape {getattr(self, name).shape} beside {count} keys"
        names = [shard.name for shard in self.shards]
        if bad := [name for name in names if name != os.path.basename(name) or name in ("", ".", "..")]:
            return f"shard name {bad[0]!r} is not a plain file name"
        if len(set(names)) != len(names):
            return "two shards have the same name"
        held = np.array([shard.samples for shard in self.shards], np.int64)
        if held.sum() != count or (held < 0).any():
            return f"its shards hold {held.sum():,} samples beside {count:,} keys"
        if not np.array_equal(self.shard, np.repeat(np.arange(len(held)), held)):
            return "the shards' sample counts do not match the samples' shard column"
        if count and (self.label.min() < 0 or self.label.max() >= len(self.classes)):
            return (
                f"labels run from {self.label.min()} to {self.label.max()} with {len(self.classes)} classes"
            )
        if count and self.kind.max() > max(ImageKind):
            return f"kind {self.kind.max()} is unknown"
        if count and min(self.length.min(), self.width.min(), self.height.min()) < 1:
            return "a length, width or height is below 1"
        end = self.offset + self.length
        size = np.array([shard.bytes for shard in self.shards], np.int64)
        if count and (self.offset.min() < 0 or (end > size[self.shard]).any()):
            return "a payload lies outside its shard"
        if ((self.offset[1:] < end[:-1]) & (self.shard[1:] == self.shard[:-1])).any():
            return "two payloads overlap"
        return None


def manifest_path(root: Path, split: str) -> Path:
    return root / f"{split}.manifest.json"


def index_path(root: Path, split: str) -> Path:
    return root / f"{split}.index.npz"


def _narrow(key: np.ndarray) -> np.ndarray:
    """Keys as bytes of the smallest width, so that equal keys have equal fingerprints."""
    key = np.asarray(key, dtype="S")
    width = int(np.char.str_len(key).max()) if key.size else 1
    return np.ascontiguousarray(key, dtype=f"S{max(width, 1)}")


def _damaged(path: Path, why: str) -> WorkFailed:
    rebuild = f"python pipeline/shards.py index {path.parent}"
    return WorkFailed(f"{path} is damaged ({why}); build it again: {rebuild}")


def _read_header(root: Path, split: str) -> dict[str, Any]:
    path = manifest_path(root, split)
    try:
        header: dict[str, Any] = read_json(path, dict)
    except FileNotFoundError:
        what = f"{path.name} is missing" if root.is_dir() else "there is no such directory"
        raise UserError(
            f"no {split} shards at {root} ({what}): build them with `python pipeline/shards.py make`, index "
            f"tars that exist with `python pipeline/shards.py index {root}`, or run without data: scale=demo"
        ) from None
    except BadFile as error:
        raise _damaged(path, str(error)) from error
    if (header.get("format"), header.get("split")) != (FORMAT, split):
        raise _damaged(path, f"it is no manifest of format {FORMAT} for split {split!r}")
    if problem := other_than(header, HEADER):
        raise _damaged(path, problem)
    return header


def _read_index(path: Path, stated: str) -> dict[str, Any]:
    """The file's hash is checked before it is parsed."""
    try:
        data = read_bytes(path, MOST_INDEX)
    except FileNotFoundError:
        raise _damaged(path, "it is missing") from None
    except BadFile as error:
        raise _damaged(path, str(error)) from error
    if xxhash.xxh3_128_hexdigest(data) != stated:
        raise _damaged(path, "it is not the file that the manifest was written with")
    try:
        stored = arrays_of(data, path.name)
        columns: dict[str, Any] = {name: stored[name] for name in ("key", *COLUMNS)}
        if len(stored.get("row_offset", ())):
            columns["restart_rows"] = {name: stored[name] for name in RESTART_ROWS}
        return columns
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(path, str(error)) from error
