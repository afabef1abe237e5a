"""A micro-batch, and what the trainer may ask of the loader that hands it over."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.data.loading.damage import Finding

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """One micro-batch. `images` is shared memory: it holds until the next batch is asked for."""

    images: "Tensor"  # uint8 [B, H, W, C]
    labels: "Tensor"  # int64 [B]
    weight: "Tensor"  # float32 [B]: 0 = padding, in evaluation only
    sample: np.ndarray  # int64 [B], rows of the manifest; −1 = padding
    position: np.ndarray  # int64 [B], names the view in the epoch; keys its draws
    slot: np.ndarray  # int64 [B], index in the global batch
    epoch: int
    step: int
    micro: int  # which of the step's micro-batches of this rank
    last: bool  # of the step
    fresh: tuple[Finding, ...]  # damaged samples that the ranks have to agree upon at this step


class Collectives(Protocol):
    """What a loader needs of the processes of a run, to agree with their loaders."""

    world: int

    def sum(self, values: Sequence[float]) -> list[float]: ...
    def gather(self, value: Any) -> list[Any]: ...


class TrainingBatches(AbstractContextManager, Protocol):
    """Iterating gives the micro-batches from (epoch, step) to the end of the epoch."""

    epoch: int
    step: int
    steps_per_epoch: int
    resumes_within_epoch: bool
    remarks: tuple[str, ...]  # what this loader cannot do, for the record of the run

    def __iter__(self) -> Iterator[MicroBatch]: ...
    def state(self) -> dict[str, Any]: ...
    def load_state(self, state: dict[str, Any]) -> None: ...

    def agree(self, batch: MicroBatch, ranks: Collectives) -> None:
        """Called by all ranks for each batch: afterwards they know the same damaged samples."""

    def damaged(self) -> int:
        """How many damaged samples the ranks have agreed upon."""

    def names(self, batch: MicroBatch) -> list[str]:
        """The first samples of the batch, as far as they can be named."""
