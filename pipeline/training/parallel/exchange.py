"""Gradients of whole copies of a network (ZeRO 0), averaged over the ranks during the backward pass."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

BUCKET = 25 << 20  # bytes that travel together


class GradientExchange:
    """Parameters stand in buckets from the last one to the first, as the backward pass comes to them.

    A bucket is sent as soon as its gradients are there, always in the same order, so that all ranks send
    alike; which sums are made in which order follows from the network and the number of ranks alone.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._buckets: list[list[Tensor]] = []
        room = 0
        for parameter in reversed([each for each in parameters if each.requires_grad]):
            room -= parameter.nbytes
            if room < 0 or not self._buckets:
                self._buckets.append([])
                room = BUCKET - parameter.nbytes
            self._buckets[-1].append(parameter)
            parameter.register_post_accumulate_grad_hook(partial(self._arrived, len(self._buckets) - 1))
        self._missing: list[int] = []  # gradients of each bucket
        self._sent: list[tuple[Tensor, dist.Work | None]] = []

    def begin(self) -> None:
        """The backward pass that follows completes the gradients."""
        self._missing = [len(bucket) for bucket in self._buckets]

    def finish(self) -> None:
        """Every gradient is the mean over the ranks, on a GPU for whatever is computed there next."""
        while len(self._sent) < len(self._buckets):  # a parameter had no part in this batch
            self._send(self._buckets[len(self._sent)])
        for flat, work in self._sent:
            assert work is not None, "asynchronous"
            work.wait()
            flat.mul_(1 / dist.get_world_size())
        self._missing, self._sent = [], []

    def _arrived(self, number: int, parameter: Tensor) -> None:
        if not self._missing:  # a further backward pass adds to it
            return
        self._missing[number] -= 1
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._send(self._buckets[len(self._sent)])

    def _send(self, bucket: list[Tensor]) -> None:
        grads = [torch.zeros_like(each) if each.grad is None else each.grad for each in bucket]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        for parameter, part in zip(bucket, flat.split([each.numel() for each in bucket]), strict=True):
            parameter.grad = part.view(parameter.shape)
        self._sent.append((flat, dist.all_reduce(flat, async_op=True)))
