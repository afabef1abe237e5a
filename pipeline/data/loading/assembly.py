"""Batches in order: places are filled by whoever renders, and handed over when the whole batch is there.

A sample that cannot be used leaves its places to a substitute, drawn by (seed, epoch, position, attempt); the
number of places never changes.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pipeline.data.loading.buffers import Ring
from pipeline.data.loading.damage import Damage, Finding
from pipeline.data.loading.rendering import IMAGE, Task, describe, runs
from pipeline.data.loading.sampler import substitute
from pipeline.data.loading.worker import Done
from pipeline.data.shards.manifest import Manifest

TASK_BYTES = 40_000  # of what a task says of its images


class Renderers(Protocol):
    def submit(self, task: Task) -> None: ...
    def collect(self) -> Done: ...
    def close(self) -> None: ...


@dataclass(eq=False)
class Order:
    """A batch to be assembled; what stands in `sample` changes where a substitute takes a place."""

    epoch: int
    step: int
    micro: int
    sample: np.ndarray  # int64 [B], −1 where a place stays empty
    position: np.ndarray  # int64 [B]
    slot: np.ndarray  # int64 [B], index in the global batch
    findings: list[Finding] = field(default_factory=list)
    ring_slot: int = -1
    open_tasks: int = 0
    attempts: dict[int, int] = field(default_factory=dict)  # place → candidates tried


class Assembler:
    def __init__(
        self,
        manifest: Manifest,
        renderers: Renderers,
        ring: Ring,
        damage: Damage,
        seed: int,
        views_per_task: int,
    ) -> None:
        self._manifest, self._renderers, self._ring, self._damage = manifest, renderers, ring, damage
        self._seed, self._views_per_task = seed, views_per_task
        self._free = deque(range(ring.slots))
        self._flying: dict[int, Order] = {}
        self._tickets = 0

    def assemble(self, orders: Iterator[Order]) -> Iterator[tuple[Order, np.ndarray]]:
        """Each order's batch in turn; it holds until the next one is asked for."""
        self._drain()
        ahead: deque[int] = deque()
        while True:
            while self._free and (order := next(orders, None)) is not None:
                ahead.append(self._begin(order))
            if not ahead:
                return
            ticket = ahead.popleft()
            order = self._flying[ticket]
            while order.open_tasks:
                self._collect()
            del self._flying[ticket]
            try:
                yield order, self._ring.batch(order.ring_slot)
            finally:
                self._free.append(order.ring_slot)

    def _drain(self) -> None:
        """What an iteration that was left early has under way must not write into slots given out anew."""
        while any(order.open_tasks for order in self._flying.values()):
            self._collect()
        self._free.extend(order.ring_slot for order in self._flying.values())
        self._flying.clear()

    def _begin(self, order: Order) -> int:
        ticket, self._tickets = self._tickets, self._tickets + 1
        self._flying[ticket] = order
        order.ring_slot = self._free.popleft()
        empty = order.sample < 0
        self._ring.batch(order.ring_slot)[empty] = 0
        places = np.flatnonzero(~empty)
        for place in places.tolist():
            if self._damage.bad(int(order.sample[place])):
                self._substitute(order, place)
        start = 0
        while start < len(places):
            stop = self._cut(order.sample[places], start)
            self._submit(ticket, order, places[start:stop])
            start = stop
        return ticket

    def _cut(self, sample: np.ndarray, begin: int) -> int:
        """Where a task that begins at `begin` ends: never between views of one image, and small."""
        first, views = runs(sample[begin:])
        size = np.cumsum(IMAGE.itemsize + 12 * views)
        fits = (size <= TASK_BYTES) & (first + views <= self._views_per_task)
        last = max(0, int(np.count_nonzero(fits)) - 1)
        return int(begin + first[last] + views[last])

    def _submit(self, ticket: int, order: Order, places: np.ndarray) -> None:
        order.open_tasks += 1
        self._renderers.submit(
            describe(
                self._manifest,
                ticket,
                order.ring_slot,
                order.epoch,
                order.sample[places],
                places,
                order.position[places],
            )
        )

    def _collect(self) -> None:
        done = self._renderers.collect()
        order = self._flying[done.ticket]
        order.open_tasks -= 1
        for failure in done.failures:
            finding = Finding(failure.sample, failure.reason)
            self._damage.note(finding)
            order.findings.append(finding)
            if self._damage.hopeless(order.findings):
                continue  # the step at which this batch is handed over is the last
            for place in failure.places:
                self._substitute(order, place)
                self._submit(done.ticket, order, np.array([place]))

    def _substitute(self, order: Order, place: int) -> None:
        while True:
            attempt = order.attempts.get(place, 0)
            order.attempts[place] = attempt + 1
            position = int(order.position[place])
            sample = substitute(self._seed, order.epoch, position, attempt, len(self._manifest))
            if not self._damage.bad(sample):
                order.sample[place] = sample
                return
