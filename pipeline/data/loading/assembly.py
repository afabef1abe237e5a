"""Batches in order: each is cut into tasks, and handed over when all of its tasks are done.

A sample that cannot be used leaves its places to a substitute, drawn by (seed, epoch, position, attempt); the
number of places never changes.
"""

import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pipeline.data.loading.buffers import Buffers
from pipeline.data.loading.damage import DamagedSamples, Findings
from pipeline.data.loading.pool import InlineQueue, ProcessPool
from pipeline.data.loading.rendering import IMAGE, Task, describe, runs
from pipeline.data.loading.sampler import substitute
from pipeline.data.shards.manifest import Manifest

MOST_VIEWS = 40_000 // IMAGE.itemsize  # of a task, so that it fits into a message


@dataclass(eq=False)
class Order:
    """A batch to be assembled; what stands in `sample` changes where a substitute takes a place."""

    epoch: int
    step: int
    micro: int
    sample: np.ndarray  # int64 [B]; the last may be −1: their places stay empty
    position: np.ndarray  # int64 [B]
    findings: Findings = field(default_factory=dict)
    buffer: int = -1
    open_tasks: int = 0
    attempts: dict[int, int] = field(default_factory=dict)  # place → candidates tried


class Assembler:
    def __init__(
        self,
        manifest: Manifest,
        tasks: InlineQueue | ProcessPool,
        buffers: Buffers,
        damage: DamagedSamples,
        seed: int,
        views_per_task: int,
    ) -> None:
        self._manifest, self._tasks, self._buffers, self._damage = manifest, tasks, buffers, damage
        self._seed, self._views_per_task = seed, min(views_per_task, MOST_VIEWS)
        self._free = deque(range(buffers.count))
        self._open: dict[int, Order] = {}
        self._tickets = 0

    def assemble(self, orders: Iterator[Order]) -> Iterator[tuple[Order, np.ndarray]]:
        """Each order's batch in turn; it holds until the next one is asked for."""
        self._drain()
        while True:
            while self._free and (order := next(orders, None)) is not None:
                self._begin(order)
            if not self._open:
                return
            ticket, order = next(iter(self._open.items()))
            while order.open_tasks:
                self._collect()
            del self._open[ticket]
            try:
                yield order, self._buffers.batch(order.buffer)
            finally:
                self._free.append(order.buffer)

    def _drain(self) -> None:
        """Wait for the tasks of an iteration that was left early: they still write into their buffers."""
        while any(order.open_tasks for order in self._open.values()):
            self._collect()
        self._free.extend(order.buffer for order in self._open.values())
        self._open.clear()

    def _begin(self, order: Order) -> None:
        """Cut the batch into tasks of about as many views, never between the views of one image."""
        ticket, self._tickets = self._tickets, self._tickets + 1
        self._open[ticket] = order
        order.buffer = self._free.popleft()
        filled = int(np.count_nonzero(order.sample >= 0))
        self._buffers.batch(order.buffer)[filled:] = 0
        for place in range(filled):
            if self._damage.bad(int(order.sample[place])):
                self._substitute(order, place)
        first, _ = runs(order.sample[:filled])
        tasks = np.unique(first // self._views_per_task, return_index=True)[1]
        for start, stop in itertools.pairwise([*first[tasks].tolist(), filled]):
            self._submit(ticket, order, start, stop)

    def _submit(self, ticket: int, order: Order, start: int, stop: int) -> None:
        order.open_tasks += 1
        images = describe(self._manifest, order.sample[start:stop])
        position = int(order.position[start])
        self._tasks.submit(Task(ticket, order.buffer, order.epoch, start, position, images))

    def _collect(self) -> None:
        done = self._tasks.collect()
        order = self._open[done.ticket]
        order.open_tasks -= 1
        for failure in done.failures:
            self._damage.note(failure.sample)
            order.findings[failure.sample] = failure.reason
            if self._damage.hopeless(order.findings):
                continue  # the step at which this batch is handed over is the last
            for place in failure.places:
                self._substitute(order, place)
                self._submit(done.ticket, order, place, place + 1)

    def _substitute(self, order: Order, place: int) -> None:
        while True:
            attempt = order.attempts.get(place, 0)
            order.attempts[place] = attempt + 1
            position = int(order.position[place])
            sample = substitute(self._seed, order.epoch, position, attempt, len(self._manifest))
            if not self._damage.bad(sample):
                order.sample[place] = sample
                return
