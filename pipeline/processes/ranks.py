"""Small exchanges between the processes of a run, and the process group in which they take place."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import UserError, WorkFailed
from pipeline.processes.place import Place

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Ranks:
    """Small exchanges between the processes of a run, over the CPU network; every rank calls them alike."""

    def __init__(self, place: Place, timeout: timedelta) -> None:
        self.place, self.rank, self.world = place, place.rank, place.world
        # NCCL moves only what is on a GPU; what is said here is not.
        self._group: Any = _control_group(timeout) if self.world > 1 else None

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._group)
        return values

    def share(self, value: Any) -> Any:
        """Rank 0's value."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def lead(self, work: Callable[[], T]) -> T:
        """Done by rank 0 alone; its result, or the user's error that it met, is every rank's."""
        error, result = None, None
        if self.rank == 0:
            try:
                result = work()
            except UserError as met:
                error = met
            except OSError as met:
                error = WorkFailed(f"{met.strerror or met}: {met.filename}")
        error, result = self.share((error, result))
        if error is not None:
            raise error
        return result

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the ranks in float64, the same on each of them to the bit."""
        if self.world == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self._group)
        return total.tolist()


def _control_group(timeout: timedelta) -> Any:
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=timeout)


@contextmanager
def joined(place: Place, device: "torch.device", timeout: float) -> Iterator[Ranks]:
    """The process group of a run; a collective that takes longer than `timeout` seconds is an error."""
    import torch
    import torch.distributed as dist

    limit = timedelta(seconds=timeout)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    # DeepSpeed asks for these, whoever made the group.
    os.environ.update(
        RANK=str(place.rank),
        WORLD_SIZE=str(place.world),
        LOCAL_RANK=str(place.local_rank),
        MASTER_ADDR=place.master,
        MASTER_PORT=str(place.port),
    )
    if place.world == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=limit)
    else:
        dist.init_process_group(
            backend, init_method="env://", rank=place.rank, world_size=place.world, timeout=limit
        )
    try:
        yield Ranks(place, limit)
    finally:
        dist.destroy_process_group()
