"""Packs a source into a set of shards: the samples are shuffled once and cut into equal shards.

Which sample goes into which shard depends on the listing and a seed only, and is decided before anything is
written.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.packing.build import Outcome, PackingPlan, PlannedShard, build
from pipeline.data.packing.sources.source import Listing, Source
from pipeline.data.shards.tar import BLOCK, END

MAX_SHARD_BYTES = 256_000_000
SHUFFLE = 0x7061636B  # part of the random key: no other use of the seed draws the same numbers


@dataclass(frozen=True)
class Packing:
    seed: int = 0
    samples_per_shard: int | None = None  # default: as many as stay within MAX_SHARD_BYTES
    workers: int = 0  # default: one per core
    skip_damaged: bool = False


def make(source: Source, out: Path, packing: Packing) -> Outcome:
    return build(source, plan_shards(source, packing), out, packing.workers, packing.skip_damaged)


def plan_shards(source: Source, packing: Packing) -> PackingPlan:
    shards: list[PlannedShard] = []
    total = 0
    for number, (split, listing) in enumerate(sorted(source.splits.items())):
        generator = np.random.Generator(np.random.Philox(key=[packing.seed, (SHUFFLE << 8) + number]))
        order = generator.permutation(len(listing.key))
        # In a tar a sample takes two headers, the padded payload, and the label's block.
        size = (3 * BLOCK + -(-listing.size // BLOCK) * BLOCK)[order]
        total += int(size.sum())
        count = _shard_count(size, packing.samples_per_shard)
        digits = max(4 if split == "train" else 2, len(str(count - 1)))
        for index, samples in enumerate(np.array_split(order, count)):
            shards.append(PlannedShard(f"{source.name}-{split}-{index:0{digits}}.tar", split, samples))
    facts = {
        "source": source.name,
        "seed": packing.seed,
        "options": source.identity,
        "shards": [len(shard.samples) for shard in shards],
        "listing": {split: _listing_hash(listing) for split, listing in sorted(source.splits.items())},
    }
    return PackingPlan(tuple(shards), total + len(END) * len(shards), facts)


def _shard_count(size: np.ndarray, samples_per_shard: int | None) -> int:
    if samples_per_shard is not None:
        return -(-len(size) // samples_per_shard)
    count = max(1, -(-int(size.sum()) // MAX_SHARD_BYTES))
    most = MAX_SHARD_BYTES - len(END)
    while count < len(size) and max(part.sum() for part in np.array_split(size, count)) > most:
        count += 1
    return count


def _listing_hash(listing: Listing) -> str:
    """Of keys and labels, not of sizes: a damaged file may be replaced between two attempts."""
    digest = hashlib.sha256(str(listing.key.dtype).encode())
    digest.update(np.ascontiguousarray(listing.key).tobytes())
    digest.update(listing.label.astype("<i4").tobytes())
    return digest.hexdigest()
