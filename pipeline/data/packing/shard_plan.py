"""Which sample goes into which shard: decided from the listing and a seed before writing."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.data.packing.sources.source import Listing, Source
from pipeline.data.shards.tar import BLOCK, END

MAX_SHARD_BYTES = 256_000_000
PACK = 0x7061636B  # keeps this use of the seed apart from every other


@dataclass(frozen=True)
class Packing:
    seed: int = 0
    samples_per_shard: int | None = None  # default: as many as stay within MAX_SHARD_BYTES
    workers: int = 0  # default: one per core
    skip_damaged: bool = False


@dataclass(frozen=True, eq=False)
class PlannedShard:
    name: str
    split: str
    samples: np.ndarray  # rows of the source's listing, in the shard's order

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class Plan:
    shards: tuple[PlannedShard, ...]
    bytes: int  # at most
    facts: dict[str, Any]  # what decides the shards' bytes; two plans with the same facts are one

    @property
    def samples(self) -> int:
        return sum(len(shard.samples) for shard in self.shards)

    @property
    def id(self) -> str:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()


def plan_shards(source: Source, packing: Packing) -> Plan:
    shards: list[PlannedShard] = []
    total = 0
    for number, (split, listing) in enumerate(sorted(source.splits.items())):
        generator = np.random.Generator(np.random.Philox(key=[packing.seed, (PACK << 8) + number]))
        order = generator.permutation(len(listing.key))
        size = sample_bytes(listing)[order]
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
    return Plan(tuple(shards), total + len(END) * len(shards), facts)


def sample_bytes(listing: Listing) -> np.ndarray:
    """What each sample takes in a tar: two headers, the padded payload, the label's block."""
    return 3 * BLOCK + -(-listing.size // BLOCK) * BLOCK


def _shard_count(size: np.ndarray, samples_per_shard: int | None) -> int:
    if samples_per_shard is not None:
        return -(-len(size) // samples_per_shard)
    count = max(1, -(-int(size.sum()) // MAX_SHARD_BYTES))
    while count < len(size):
        largest = max(int(part.sum()) for part in np.array_split(size, count)) + len(END)
        if largest <= MAX_SHARD_BYTES:
            break
        count += 1
    return count


def _listing_hash(listing: Listing) -> str:
    """Of names and labels: a file that was damaged may be replaced between two attempts."""
    digest = hashlib.sha256(str(listing.key.dtype).encode())
    digest.update(np.ascontiguousarray(listing.key).tobytes())
    digest.update(listing.label.astype("<i4").tobytes())
    return digest.hexdigest()
