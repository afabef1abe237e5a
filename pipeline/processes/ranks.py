"""Small exchanges between the processes of a run, and the process group in which they take place.

A rank that waits for another one ends with an error, and the run can be started again:

- The other process is dead. gloo sees its closed socket at once; NCCL sees nothing. `srun --kill-on-bad-exit`
  and torchrun end the other ranks as well.
- The other process does not go on (it is stopped, or its node is). The collective's time-out ends the wait:
  gloo raises; NCCL's watchdog aborts the process, as torch's default of TORCH_NCCL_ASYNC_ERROR_HANDLING says.

A rank may rightly be busy for long before its first step is done (imports, compiling, reading a checkpoint);
later it is not. So the time-out is long at first and then set to a shorter one (`Ranks.wait_at_most`).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import UserError, WorkFailed
from pipeline.processes.place import Place

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")


class Ranks:
    """Small exchanges between the processes of a run, over the CPU network. All ranks make the same calls."""

    def __init__(self, place: Place, timeout: timedelta = timedelta()) -> None:
        self.place, self.rank, self.world = place, place.rank, place.world
        self._group: Any = None
        if self.world > 1:
            import torch.distributed as dist

            # NCCL moves only what is on a GPU; what is said here is not.
            self._group = dist.new_group(backend="gloo", timeout=timeout)

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

    def sum_later(self, values: "Tensor") -> Callable[[], list[float]]:
        """Sums over the ranks of a few numbers on the device, by the network of the gradients.

        Nothing waits for them but the function that comes back.
        """
        import torch
        import torch.distributed as dist

        work = dist.all_reduce(values, async_op=True) if self.world > 1 else None
        arrived: Callable[[], object] = work.wait if work else lambda: None
        if values.is_cuda:
            arrived()  # the device waits, not this process
            there, event = values, torch.cuda.Event()
            values = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
            values.copy_(there, non_blocking=True)
            event.record()
            arrived = event.synchronize

        def read() -> list[float]:
            arrived()
            return values.tolist()

        return read

    def average(self, tensors: Sequence["Tensor"]) -> None:
        """Each becomes its mean over the ranks, by the network of the gradients; all are of one kind."""
        if self.world == 1 or not tensors:
            return
        import torch
        import torch.distributed as dist

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, mean in zip(tensors, (flat / self.world).split(sizes), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def wait_at_most(self, seconds: float) -> None:
        """From here on, a collective of any process group, DeepSpeed's too, that takes longer is an error.

        torch has no public list of them; `_world.pg_map` was read in torch 2.15. `set_timeout` is public in
        torch 2.15; torch 2.11 has the same under a private name.
        """
        if self.world == 1:
            return
        import torch.distributed as dist
        from torch.distributed import distributed_c10d as c10d

        change = dist.set_timeout if hasattr(dist, "set_timeout") else c10d._set_pg_timeout
        for group in c10d._world.pg_map:
            change(timedelta(seconds=seconds), group)


@contextmanager
def peer_errors(world: int) -> Iterator[None]:
    """An error of a collective that missed another rank becomes one line for the user."""
    try:
        yield
    except RuntimeError as error:
        import torch.distributed as dist

        # gloo has no error class of its own: its errors begin with the place in its source that raised them.
        if world == 1 or not (isinstance(error, dist.DistError) or "/gloo/transport/" in str(error)):
            raise
        raise WorkFailed(
            "another process of this run is gone or does not answer; starting the run again continues it "
            f"({str(error).splitlines()[0]})"
        ) from error


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
    store = dist.HashStore() if place.world == 1 else None  # several meet by what the environment says
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world, timeout=limit)
    try:
        with peer_errors(place.world):
            yield Ranks(place, limit)
    except BaseException:
        if place.world == 1:  # with others, this could wait for one that is gone; the process ends without it
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()
