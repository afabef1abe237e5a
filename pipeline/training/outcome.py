"""What a step came to: numbers that lie on the device, and with other ranks, until somebody reads them.

And what a run keeps of all its steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.data.loading.batch import MicroBatch
from pipeline.processes.pace import SlowRank
from pipeline.processes.ranks import Ranks


@dataclass
class TrainingState:
    """What a checkpoint keeps of the trainer beside tensors.

    A step's checkpoint is published before its evaluation, so `best` is of an earlier step.
    """

    step: int = 0  # updates done
    skipped: int = 0  # of them, not applied because something was not finite
    in_a_row: int = 0
    events: list[str] = field(default_factory=list)
    best: int = 0  # the step whose weights were the most accurate so far
    best_top1: float = -1.0


@dataclass(frozen=True)
class StepOutcome:
    """The same on all ranks."""

    loss: float = math.nan  # mean of the global batch
    grad_norm: float = math.nan  # before clipping; not finite: the weights stayed as they were
    asked_to_end: bool = False  # some rank was
    due: bool = False  # rank 0's clock says that it is time for a checkpoint
    damaged: bool = False  # some rank has found damaged samples


@dataclass(frozen=True)
class StepResult:
    """What a step tells the run's loop."""

    values: dict[str, float] | None  # where a line is to be written
    wait: float  # seconds that it waited for data
    asked_to_end: bool  # as in StepOutcome, of this step or the one before
    due: bool
    slowest: SlowRank | None  # where a line is to be written


@dataclass(frozen=True, eq=False)
class Sent:
    """A step whose numbers are on their way, and what it takes to act upon them."""

    step: int  # counted from 0
    batches: list[MicroBatch]  # of this rank
    losses: list[Tensor]  # of each
    buffers: dict[str, Tensor]  # after the update; the next forward pass changes them
    read: Callable[[], StepOutcome]  # waits until they are there


def send(
    ranks: Ranks, losses: list[Tensor], norm: Tensor, asked: bool, due: bool, damaged: bool
) -> Callable[[], StepOutcome]:
    """Sum them over the ranks, waiting for nothing; the function that comes back waits, and tells."""
    of_device = torch.stack([torch.stack(losses).double().sum(), norm.double().to(losses[0].device)])
    of_host = torch.tensor([asked, due, damaged], dtype=torch.float64).to(of_device.device, non_blocking=True)
    sums = ranks.sum_later(torch.cat([of_device, of_host]))

    def read() -> StepOutcome:
        loss, norm, *flags = sums()
        # The norm is the same on every rank: their sum, divided by their number, is it to the bit.
        loss, norm = loss / (ranks.world * len(losses)), norm / ranks.world
        return StepOutcome(loss, norm, *(flag > 0 for flag in flags))

    return read
