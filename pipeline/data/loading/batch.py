"""A micro-batch, and what the trainer may ask of the loader that hands it over."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.loading.damage import Findings
from pipeline.data.loading.sampler import Sampling, steps_per_epoch
from pipeline.processes.ranks import Ranks

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """One micro-batch. `images` is shared memory: it holds until the next batch is asked for."""

    images: "Tensor"  # uint8 [B, H, W, C]
    labels: "Tensor"  # int64 [B]; of padding any
    sample: np.ndarray  # int64 [B], rows of the manifest; −1 = padding, in evaluation only
    position: np.ndarray  # int64 [B], names the view in the epoch; keys its draws
    epoch: int
    step: int
    last: bool  # of this rank's micro-batches of the step
    fresh: Findings  # damaged samples that the ranks have to agree upon


class TrainingBatches(AbstractContextManager):
    """Iterating gives a rank's micro-batches from (epoch, step) to the end of the epoch."""

    resumes_within_epoch = True
    remarks: tuple[str, ...] = ()  # what this loader cannot do, for the record of the run

    def __init__(
        self, samples: int, sampling: Sampling, rank: int, world: int, micro_batch: int | None
    ) -> None:
        sampling.check_world(world)
        assert 0 <= rank < world, f"rank {rank} of {world}"
        share = sampling.global_batch // world
        self.micro_batch = share if micro_batch is None else micro_batch
        sampling.check_micro_batch(self.micro_batch, world)
        self.sampling, self.rank, self.world = sampling, rank, world
        self.micro_batches = share // self.micro_batch
        self.steps_per_epoch = steps_per_epoch(samples, sampling)
        self.epoch, self.step = 0, 0

    @abstractmethod
    def __iter__(self) -> Iterator[MicroBatch]: ...

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Where to go on once the steps handed over whole are done; the same on every rank."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Go on at a state; nothing is replayed. Another order or other data are refused by name."""

    # What a loader answers that replaces damaged samples by itself, and neither counts nor numbers them.

    @property
    def fresh(self) -> int:
        """How many damaged samples this rank has met that the ranks have not agreed upon."""
        return 0

    def agree(self, ranks: Ranks) -> None:
        """Called by all ranks where one of them has met some: afterwards they know the same ones."""

    def damaged(self) -> int:
        """How many damaged samples the ranks have agreed upon."""
        return 0

    def names(self, batch: MicroBatch) -> list[str]:
        """The first samples of the batch, as far as they can be named."""
        return []

    def __exit__(self, *_: object) -> None:
        """An epoch's processes end with its iterator."""

    def positions(self, step: int, micro: int) -> np.ndarray:
        """Of the views of this rank's micro-batch."""
        before = (step * self.world + self.rank) * self.micro_batches + micro
        return before * self.micro_batch + np.arange(self.micro_batch)

    def _counted(self, batches: Iterable[MicroBatch]) -> Iterator[MicroBatch]:
        """Each batch; (epoch, step) is that after it once it is the last of its step."""
        for batch in batches:
            if batch.last:
                following = batch.step + 1 == self.steps_per_epoch
                self.epoch, self.step = (batch.epoch + 1, 0) if following else (batch.epoch, batch.step + 1)
            yield batch
