"""Batches for the trainer: in order, exact to the sample, the same for any number of workers and ranks."""

import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.loading.assembly import Assembler, Order
from pipeline.data.loading.batch import MicroBatch, TrainingBatches
from pipeline.data.loading.buffers import Buffers
from pipeline.data.loading.damage import NONE, DamagedSamples, Limits
from pipeline.data.loading.pool import InlineQueue, ProcessPool
from pipeline.data.loading.rendering import Rendering
from pipeline.data.loading.sampler import Sampling, TrainOrder
from pipeline.data.shards.manifest import Manifest
from pipeline.data.shards.reader import PAUSES
from pipeline.errors import Range, UserError, WorkFailed, check_ranges, some
from pipeline.processes.place import cores_of_process
from pipeline.processes.ranks import Ranks

STATE_FORMAT = 1
MOST_WORKERS = 16  # by the cores; they feed a GPU at 7,500 images/s, and each has buffers of its own
MIN_VIEWS = 32  # of a task: below, what a task costs by itself shows

RANGES = {
    "workers": Range(-1, 1024),
    "batches": Range(1, 1024),
    "timeout": Range(0, 1_000_000, without_least=True),
    "pauses": Range(0, 3600),
}


@dataclass(frozen=True)
class Loading:
    """How batches are prepared; no setting here changes what is in them."""

    workers: int = -1  # processes of each rank; -1 = by its cores, all but one; 0 = the trainer's own
    batches: int = 6  # in shared memory: one in use, the others ahead of it
    timeout: float = 60.0  # seconds without a sign of life before a worker counts as hung
    pauses: tuple[float, ...] = PAUSES  # seconds before each further attempt at a read that failed

    def __post_init__(self) -> None:
        check_ranges(self, RANGES, "data.loading")

    def processes(self) -> int:
        """Of a rank that runs here."""
        return self.workers if self.workers >= 0 else min(MOST_WORKERS, max(1, cores_of_process() - 1))


class _IndexedLoader(AbstractContextManager):
    """What training and evaluation share."""

    def __init__(
        self,
        manifest: Manifest,
        augmentation: Augmentation,
        batch: int,
        loading: Loading,
        limits: Limits,
        seed: int = 0,
        evaluation: bool = False,
    ) -> None:
        if problems := manifest.check_files():
            raise WorkFailed(
                f"the {manifest.split} shards at {manifest.root} are not those of their manifest: "
                f"{some(problems, '; ')}. Replace them, or build the set again"
            )
        self.manifest, self.damage = manifest, DamagedSamples(manifest, limits)
        # Workers run elsewhere than the trainer may later: they are told the whole path.
        root, names = manifest.root.absolute(), tuple(shard.name for shard in manifest.shards)
        rendering = Rendering(root, names, augmentation, seed, evaluation, loading.pauses)
        workers = loading.processes()
        self._buffers = Buffers(loading.batches if workers else 1, (batch, *rendering.image_shape), workers)
        self._tasks: InlineQueue | ProcessPool
        if workers:
            self._tasks = ProcessPool(rendering, self._buffers, manifest.name, loading.timeout)
        else:
            self._tasks = InlineQueue(rendering, self._buffers)
        per_task = max(MIN_VIEWS, -(-batch // (2 * max(1, workers))))
        self._assembler = Assembler(manifest, self._tasks, self._buffers, self.damage, seed, per_task)

    def __exit__(self, *_: object) -> None:
        self._tasks.close()
        self._buffers.close()

    def names(self, batch: MicroBatch) -> list[str]:
        """Of the first ten samples."""
        return [self.manifest.name(sample) for sample in batch.sample[:10].tolist()]

    def _batches(self, orders: Iterator[Order], micros: int, agree: bool) -> Iterator[MicroBatch]:
        import torch

        for order, images in self._assembler.assemble(orders):
            fresh = self.damage.hand_over(order.findings)
            if agree and fresh:
                self.damage.agree([fresh])
            labels = self.manifest.label[order.sample].astype(np.int64)
            yield MicroBatch(
                images=torch.from_numpy(images),
                labels=torch.from_numpy(labels),
                sample=order.sample,
                position=order.position,
                epoch=order.epoch,
                step=order.step,
                last=order.micro == micros - 1,
                fresh=fresh,
            )


class TrainLoader(_IndexedLoader, TrainingBatches):
    """Several ranks call `agree` where one of them has met damaged samples; a single one does by itself."""

    def __init__(
        self,
        manifest: Manifest,
        sampling: Sampling,
        augmentation: Augmentation,
        *,
        rank: int = 0,
        world: int = 1,
        micro_batch: int | None = None,
        loading: Loading | None = None,
        limits: Limits | None = None,
    ) -> None:
        assert sampling.pairing_block % augmentation.pairing_block == 0, (
            "the order would tear mixed pairs apart"
        )
        TrainingBatches.__init__(self, len(manifest), sampling, rank, world, micro_batch)
        self._order = TrainOrder(manifest, sampling)
        loading, limits = loading or Loading(), limits or Limits()
        super().__init__(manifest, augmentation, self.micro_batch, loading, limits, sampling.seed)

    def __iter__(self) -> Iterator[MicroBatch]:
        orders = self._orders(self.epoch, self.step)
        return self._counted(self._batches(orders, self.micro_batches, agree=self.world == 1))

    @property
    def fresh(self) -> int:
        return len(self.damage.fresh)

    def agree(self, ranks: Ranks) -> None:
        """Every rank learns what the others found; all of them raise together where that is too much."""
        self.damage.agree(ranks.gather(self.damage.fresh))

    def damaged(self) -> int:
        return len(self.damage.known)

    def state(self) -> dict[str, Any]:
        return {
            "format": STATE_FORMAT,
            "epoch": self.epoch,
            "step": self.step,
            "sampling": dataclasses.asdict(self.sampling),
            "data": _data(self.manifest),
            "damaged": self.damage.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        if state.get("format") != STATE_FORMAT:
            raise UserError(f"data state has format {state.get('format')!r}, this code reads {STATE_FORMAT}")
        for what, ours in (("data", _data(self.manifest)), ("sampling", dataclasses.asdict(self.sampling))):
            theirs = state[what]
            if differing := [name for name in ours if theirs.get(name) != ours[name]]:
                said = ", ".join(f"{name} {theirs.get(name)!r} → {ours[name]!r}" for name in differing)
                raise UserError(
                    f"cannot go on in epoch {state['epoch']} at step {state['step']}: the {what} changed "
                    f"since that state was saved ({said}); put it back, or start another run"
                )
        self.epoch, self.step = state["epoch"], state["step"]
        self.damage.load(state["damaged"])

    def _orders(self, epoch: int, first: int) -> Iterator[Order]:
        for step in range(first, self.steps_per_epoch):
            for micro in range(self.micro_batches):
                position = self.positions(step, micro)
                yield Order(epoch, step, micro, self._order.samples(epoch, position), position)


class EvaluationLoader(_IndexedLoader):
    """Iterating gives every sample of the split once over all ranks; padding, at the end, is sample −1.

    No sample may be missing: a single rank raises at the first that cannot be used. Several ranks agree as in
    training, with the same end for all of them.
    """

    def __init__(
        self,
        manifest: Manifest,
        augmentation: Augmentation,
        *,
        batch: int,
        rank: int = 0,
        world: int = 1,
        loading: Loading | None = None,
    ) -> None:
        if not len(manifest):
            raise UserError("there are no samples to evaluate")
        self.batch, self.rank, self.world = batch, rank, world
        self.steps = -(-len(manifest) // (batch * world))
        super().__init__(manifest, augmentation, batch, loading or Loading(), NONE, evaluation=True)

    def __iter__(self) -> Iterator[MicroBatch]:
        return self._batches(self._orders(), 1, agree=self.world == 1)

    def agree(self, batch: MicroBatch, ranks: Ranks) -> None:
        """For each batch, by all ranks: all of them raise together where one could not read its own."""
        if ranks.world > 1 and ranks.sum([float(len(batch.fresh))])[0]:
            self.damage.agree(ranks.gather(batch.fresh))

    def _orders(self) -> Iterator[Order]:
        for step in range(self.steps):
            place = (step * self.world + self.rank) * self.batch + np.arange(self.batch)
            yield Order(0, step, 0, np.where(place < len(self.manifest), place, -1), place)


def _data(manifest: Manifest) -> dict[str, Any]:
    return {
        "split": manifest.split,
        "samples": len(manifest),
        "shards": len(manifest.shards),
        "classes": len(manifest.classes),
        "fingerprint": manifest.fingerprint,
    }
