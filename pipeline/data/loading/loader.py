"""Batches for the trainer: in order, exact to the sample, the same for any number of workers and ranks.

with TrainLoader(manifest, sampling, augmentation, rank=rank, world=world) as loader:
    loader.load_state(checkpoint["data"])
    while loader.epoch < epochs:
        for batch in loader:  # to the end of the epoch
            ...
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.loading.assembly import Assembler, Order, TaskQueue
from pipeline.data.loading.batch import Collectives, MicroBatch
from pipeline.data.loading.buffers import Buffers
from pipeline.data.loading.damage import NONE, DamagedSamples, Limits
from pipeline.data.loading.pool import InlineQueue, ProcessPool
from pipeline.data.loading.rendering import Rendering
from pipeline.data.loading.sampler import EvaluationOrder, Sampling, TrainOrder
from pipeline.data.shards.manifest import Manifest
from pipeline.data.shards.reader import PAUSES
from pipeline.errors import UserError, WorkFailed

STATE_FORMAT = 1


@dataclass(frozen=True)
class Loading:
    """How batches are prepared; no setting here changes what is in them."""

    workers: int = 4  # processes of each rank; 0 = the trainer's own
    batches: int = 6  # in shared memory: one in use, the others ahead of it
    timeout: float = 60.0  # seconds without a sign of life before a worker counts as hung
    pauses: tuple[float, ...] = PAUSES  # seconds before each further attempt at a read that failed

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("batches", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.timeout <= 0:
            raise UserError(f"timeout is {self.timeout}; it must be above 0 seconds")


class _Loader:
    """What training and evaluation share."""

    def __init__(
        self, manifest: Manifest, rendering: Rendering, batch: int, damage: DamagedSamples, loading: Loading
    ) -> None:
        if problems := manifest.check_files():
            more = f", and {len(problems) - 10} more" if len(problems) > 10 else ""
            raise WorkFailed(
                f"the {manifest.split} shards at {manifest.root} are not those of their manifest: "
                f"{'; '.join(problems[:10])}{more}. Replace them, or build the set again"
            )
        self.manifest, self.damage = manifest, damage
        rendering = dataclasses.replace(rendering, pauses=loading.pauses)
        count = loading.batches if loading.workers else 1
        self._buffers = Buffers(count, (batch, *rendering.image_shape), loading.workers)
        self._tasks: TaskQueue
        if loading.workers:
            self._tasks = ProcessPool(rendering, self._buffers, self._name, loading.timeout)
        else:
            self._tasks = InlineQueue(rendering, self._buffers)
        per_task = max(MIN_VIEWS, -(-batch // (2 * max(1, loading.workers))))
        self._assembler = Assembler(manifest, self._tasks, self._buffers, damage, rendering.seed, per_task)
        self._closed = False

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._tasks.close()
            self._buffers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def agree(self, batch: MicroBatch, ranks: Collectives) -> None:
        """Every rank learns what the others found; all of them raise together where that is too much."""
        if ranks.world > 1 and ranks.sum([float(len(batch.fresh))])[0]:
            self.damage.agree(ranks.gather(batch.fresh))

    def names(self, batch: MicroBatch) -> list[str]:
        """Of the first ten samples."""
        return [self._name(sample) for sample in batch.sample[:10].tolist()]

    def _name(self, sample: int) -> str:
        shard = self.manifest.shards[self.manifest.shard[sample]].name
        return f"sample {self.manifest.key[sample].decode(errors='replace')!r} of {shard}"

    def _batches(self, orders: Iterator[Order], micros: int, agree: bool) -> Iterator[MicroBatch]:
        import torch

        for order, images in self._assembler.assemble(orders):
            fresh = self.damage.hand_over(order.findings)
            if agree and fresh:
                self.damage.agree([fresh])
            padding = order.sample < 0
            labels = np.where(padding, 0, self.manifest.label[order.sample])
            yield MicroBatch(
                images=torch.from_numpy(images),
                labels=torch.from_numpy(labels.astype(np.int64)),
                weight=torch.from_numpy((~padding).astype(np.float32)),
                sample=order.sample,
                position=order.position,
                slot=order.slot,
                epoch=order.epoch,
                step=order.step,
                micro=order.micro,
                last=order.micro == micros - 1,
                fresh=fresh,
            )


MIN_VIEWS = 32  # of a task: below, what a task costs by itself shows


class TrainLoader(_Loader):
    """Iterating gives the micro-batches from (epoch, step) to the end of the epoch.

    With several ranks each of them calls `agree` before it asks for the next batch. A single rank agrees by
    itself.
    """

    resumes_within_epoch = True
    remarks: tuple[str, ...] = ()

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
        sampling.check_world(world)
        assert 0 <= rank < world, f"rank {rank} of {world}"
        share = sampling.global_batch // world
        self.micro_batch = share if micro_batch is None else micro_batch
        sampling.check_micro_batch(self.micro_batch, world)
        self.micro_batches = share // self.micro_batch
        self.sampling, self.rank, self.world = sampling, rank, world
        self._order = TrainOrder(manifest, sampling)
        self.steps_per_epoch, self.dropped = self._order.steps_per_epoch, self._order.dropped
        self.epoch, self.step = 0, 0
        rendering = _rendering(manifest, augmentation, seed=sampling.seed)
        damage = DamagedSamples(manifest, limits or Limits())
        super().__init__(manifest, rendering, self.micro_batch, damage, loading or Loading())

    def __iter__(self) -> Iterator[MicroBatch]:
        orders = self._orders(self.epoch, self.step)
        for batch in self._batches(orders, self.micro_batches, agree=self.world == 1):
            if batch.last:
                following = batch.step + 1 == self.steps_per_epoch
                self.epoch, self.step = (batch.epoch + 1, 0) if following else (batch.epoch, batch.step + 1)
            yield batch

    def damaged(self) -> int:
        return len(self.damage.known)

    def state(self) -> dict[str, Any]:
        """Where to go on once the steps handed over whole are done; the same on every rank."""
        return {
            "format": STATE_FORMAT,
            "epoch": self.epoch,
            "step": self.step,
            "sampling": dataclasses.asdict(self.sampling),
            "data": _data(self.manifest),
            "damaged": self.damage.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on at a state; nothing is replayed. Another order or other data are refused by name."""
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
            share = self._order.share(epoch, step, self.rank, self.world)
            for micro in range(self.micro_batches):
                part = share[micro * self.micro_batch : (micro + 1) * self.micro_batch]
                yield Order(epoch, step, micro, part.sample.copy(), part.position, part.slot)


class EvaluationLoader(_Loader):
    """Iterating gives every sample of the split once over all ranks; padding has weight 0.

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
        self._order = EvaluationOrder(len(manifest), batch, rank, world)
        self.steps, self.world = self._order.steps, world
        rendering = _rendering(manifest, augmentation, evaluation=True)
        super().__init__(manifest, rendering, batch, DamagedSamples(manifest, NONE), loading or Loading())

    def __iter__(self) -> Iterator[MicroBatch]:
        return self._batches(self._orders(), 1, agree=self.world == 1)

    def _orders(self) -> Iterator[Order]:
        for step in range(self.steps):
            sample = self._order.step(step)
            slot = self._order.rank * len(sample) + np.arange(len(sample))
            yield Order(0, step, 0, sample, step * self._order.world * len(sample) + slot, slot)


def _rendering(
    manifest: Manifest, augmentation: Augmentation, seed: int = 0, evaluation: bool = False
) -> Rendering:
    # Workers run elsewhere than the trainer may later: they are told the whole path.
    root = manifest.root.absolute()
    names = tuple(shard.name for shard in manifest.shards)
    return Rendering(root, names, augmentation, seed, evaluation)


def _data(manifest: Manifest) -> dict[str, Any]:
    return {
        "split": manifest.split,
        "samples": len(manifest),
        "shards": len(manifest.shards),
        "classes": len(manifest.classes),
        "fingerprint": manifest.fingerprint,
    }
