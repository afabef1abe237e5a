"""Reads every byte of a set again and names the damaged shards and the damaged samples in them."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.packing.fork_pool import Advance, run_forked
from pipeline.data.shards.manifest import Manifest
from pipeline.data.shards.tar import ArchiveDamage, scan_file
from pipeline.errors import some
from pipeline.files import sha256_of
from pipeline.terminal import progress
from tnt.untrusted.reading import BadFile, open_regular


@dataclass(frozen=True)
class ShardDamage:
    shard: str
    reason: str
    samples: tuple[str, ...]  # keys of the samples whose payload has changed

    def __str__(self) -> str:
        if not self.samples:
            return f"{self.shard}: {self.reason}; no image in it is damaged"
        return f"{self.shard}: {self.reason}; damaged samples: {some(self.samples)}"


def verify(root: Path, workers: int = 0) -> list[ShardDamage]:
    """All damaged shards of all splits; none means that every byte is the same as when it was packed."""
    manifests = Manifest.read_all(root)
    tasks = [(number, index) for number, one in enumerate(manifests) for index in range(len(one.shards))]
    total = sum(len(manifest) for manifest in manifests)

    def check(task: tuple[int, int], advance: Advance) -> ShardDamage | None:
        manifest = manifests[task[0]]
        damage = verify_shard(manifest, task[1])
        advance(manifest.shards[task[1]].samples)
        return damage

    with progress(total, "verifying") as advance:
        return [damage for damage in run_forked(check, tasks, workers, advance) if damage is not None]


def verify_shard(manifest: Manifest, index: int) -> ShardDamage | None:
    shard, path = manifest.shards[index], manifest.path(index)
    rows = np.flatnonzero(manifest.shard == index)
    if not path.exists():
        return ShardDamage(shard.name, "it is missing", _keys(manifest, rows))
    try:
        opened = open_regular(path)
    except BadFile as error:
        return ShardDamage(shard.name, str(error), _keys(manifest, rows))
    with opened as file:
        size = os.fstat(file.fileno()).st_size
        if size == shard.bytes and sha256_of(file) == shard.sha256:
            return None
        bad = []
        for row in rows.tolist():
            payload = os.pread(file.fileno(), int(manifest.length[row]), int(manifest.offset[row]))
            if not manifest.is_sound(row, payload):
                bad.append(row)
    reason = _reason(path, size, shard.bytes)
    return ShardDamage(shard.name, reason, _keys(manifest, np.array(bad, int)))


def _reason(path: Path, size: int, recorded: int) -> str:
    if size != recorded:
        return f"it has {size:,} bytes where {recorded:,} are recorded"
    try:
        for _ in scan_file(path):
            pass
    except ArchiveDamage as damage:
        return f"{damage.reason} at byte {damage.offset}"
    return "its bytes are not the recorded ones"


def _keys(manifest: Manifest, rows: np.ndarray) -> tuple[str, ...]:
    return tuple(key.decode(errors="replace") for key in manifest.key[rows].tolist())
