"""Which samples a step shows: a function of the manifest, the seed, the epoch and the step.

Each image of an epoch is repeated R times in a row (repeated augmentation: Hoffer et al., arXiv 1901.09335,
as in DeiT). Step t takes the next G views. A view's number in the epoch, t·G + slot, is its position; every
random draw for the view depends on it. Each rank takes one contiguous part of the global batch. DeiT gives
the views to the ranks in turn; here the repeats of an image stay on one rank, which decodes it once. The
views of a step are the same.

Order "global" is a permutation of all samples. Order "lane" is for file systems on which random access is
slow: the shards are permuted and joined to one list, the list is cut into L equal lanes, samples are permuted
within windows of a few shards of a lane, and each lane gives G/L consecutive views to every step.
"""

import bisect
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.data.randomness import Purpose, philox
from pipeline.data.shards.manifest import Manifest
from pipeline.errors import Range, UserError, check_ranges, unknown_name

ORDERS = ("global", "lane")
# DeiT's rule for an epoch with repeats: as many views as images, rounded down to a multiple of this.
ROUND = 256
# Streams of Purpose.ORDER; the last is of shards that webdataset reads.
SAMPLES, SHARDS, WINDOWS, STREAMED = range(4)


@dataclass(frozen=True)
class Sampling:
    """The settings of the order; the pairing block is the augmentation's."""

    seed: int = 0
    global_batch: int = 1024
    repeats: int = 3
    order: str = "global"
    lanes: int = 64  # order "lane" only; a world size must divide it
    window: int = 4  # order "lane" only: shards whose samples are permuted together
    pairing_block: int = 8  # views that must stay on one rank and in one micro-batch

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise unknown_name("order of samples", self.order, ORDERS)
        numbers = ("global_batch", "repeats", "lanes", "window", "pairing_block")
        check_ranges(self, dict.fromkeys(numbers, Range(1, 1 << 20)), "sampling")
        if self.global_batch % self.pairing_block:
            batch, block = self.global_batch, self.pairing_block
            raise UserError(
                f"global_batch is {batch}; it must be a multiple of {block}, the views mixed in pairs: "
                f"the nearest are {_nearest(batch, range(block, batch + 2 * block, block))}"
            )
        if self.order == "lane" and self.lanes not in (valid := self._parts()):
            raise UserError(
                f"lanes is {self.lanes}: so many equal parts in whole blocks of {self.pairing_block} do "
                f"not make a global batch of {self.global_batch}; take {_nearest(self.lanes, valid)} lanes"
            )

    def _parts(self) -> list[int]:
        """Into how many equal parts of whole pairing blocks the global batch can be cut."""
        return [
            n for n in range(1, self.global_batch + 1) if self.global_batch % (n * self.pairing_block) == 0
        ]

    def check_world(self, world: int) -> None:
        """Refuse a world size that cannot give each rank an equal part of the batch, or whole lanes."""
        laned = self.order == "lane"
        valid = [n for n in self._parts() if not laned or self.lanes % n == 0]
        if world not in valid:
            batch = f"a global batch of {self.global_batch}" + (f" in {self.lanes} lanes" if laned else "")
            raise UserError(
                f"{world} ranks cannot hold equal parts, in whole blocks of {self.pairing_block}, of "
                f"{batch}; the nearest world sizes that can: {_nearest(world, valid)}"
            )

    def check_micro_batch(self, micro_batch: int, world: int) -> None:
        share = self.global_batch // world
        valid = [n for n in range(self.pairing_block, share + 1, self.pairing_block) if share % n == 0]
        if micro_batch not in valid:
            raise UserError(
                f"micro_batch {micro_batch} does not cut a rank's {share} views per step into equal parts of "
                f"whole blocks of {self.pairing_block}; the nearest that do: {_nearest(micro_batch, valid)}"
            )


def steps_per_epoch(samples: int, sampling: Sampling) -> int:
    return _views(samples, sampling) // sampling.global_batch


def _views(samples: int, sampling: Sampling) -> int:
    """Of an epoch."""
    return samples // ROUND * ROUND if sampling.repeats > 1 and samples >= ROUND else samples


class TrainOrder:
    """The global batches of every epoch; it keeps the orders of the two epochs asked for last."""

    def __init__(self, manifest: Manifest, sampling: Sampling) -> None:
        self.sampling = sampling
        self._held = np.array([shard.samples for shard in manifest.shards], np.int64)
        self._samples = len(manifest)
        self._order = functools.lru_cache(maxsize=2)(self._images)
        self.steps_per_epoch = steps_per_epoch(self._samples, sampling)
        if not self.steps_per_epoch:
            raise UserError(
                f"split {manifest.split!r} in {manifest.root} holds {self._samples} samples, fewer than one "
                f"global batch of {sampling.global_batch}; take a global batch of at most "
                f"{_views(self._samples, sampling)}"
            )

    def samples(self, epoch: int, position: np.ndarray) -> np.ndarray:
        """Which sample each view shows, by its position in the epoch: int64 [N], rows of the manifest."""
        how, images = self.sampling, self._order(epoch)
        if how.order == "global":
            return images[position // how.repeats].astype(np.int64)
        each = how.global_batch // how.lanes
        step, slot = np.divmod(position, how.global_batch)
        lane, place = np.divmod(slot, each)
        return images.reshape(how.lanes, -1)[lane, (step * each + place) // how.repeats].astype(np.int64)

    def _images(self, epoch: int) -> np.ndarray:
        if self.sampling.order == "lane":
            return self._laned(epoch).astype(np.int32)
        return permutation(self.sampling.seed, epoch, SAMPLES, self._samples).astype(np.int32)

    def _laned(self, epoch: int) -> np.ndarray:
        """Lane after lane, each as many images as its share of the epoch's views needs."""
        shards = permutation(self.sampling.seed, epoch, SHARDS, len(self._held))
        first = np.cumsum(self._held) - self._held
        runs = self._held[shards]
        images = np.repeat(first[shards] - (np.cumsum(runs) - runs), runs) + np.arange(self._samples)
        views = self.steps_per_epoch * self.sampling.global_batch // self.sampling.lanes
        per_lane = -(-views // self.sampling.repeats)
        images = images[: self.sampling.lanes * per_lane]
        windows = max(1, round(per_lane / (self.sampling.window * self._held.mean())))
        lane, place = np.divmod(np.arange(len(images)), per_lane)
        window = lane * windows + place * windows // per_lane
        return images[np.lexsort((_words(self.sampling.seed, epoch, WINDOWS, len(images)), window))]


def substitute(seed: int, epoch: int, position: int, attempt: int, samples: int) -> int:
    """The attempt-th candidate to replace a damaged sample; the first that can be read is taken."""
    word = philox(seed, Purpose.SUBSTITUTE, epoch, high=position, low=attempt).random_raw()
    return int(word % np.uint64(samples))


def _words(seed: int, epoch: int, stream: int, count: int) -> np.ndarray:
    return philox(seed, Purpose.ORDER, epoch, high=stream).random_raw(count)


def permutation(seed: int, epoch: int, stream: int, count: int) -> np.ndarray:
    """By sorting raw words: unlike Generator.permutation, NumPy promises these for all its versions."""
    return np.argsort(_words(seed, epoch, stream, count), kind="stable")


def _nearest(value: int, valid: Sequence[int]) -> str:
    """The valid numbers, which ascend, on both sides of a value."""
    above = bisect.bisect_right(valid, value)
    return " and ".join(map(str, valid[max(0, above - 1) : above + 1]))
