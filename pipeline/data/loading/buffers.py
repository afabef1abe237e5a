"""Batches in memory that all processes of a loader share: allocated once, touched once, reused.

Fresh shared memory for each batch, as torch's DataLoader takes it, costs more in page faults than copying
the images. The memory is an anonymous file: it has no name, so nothing is left of it when its processes are
killed.
"""

import mmap
import os

import numpy as np

from pipeline.errors import UserError
from tnt.untrusted.reading import memory

PAGE = mmap.PAGESIZE
# A worker's line of the board: which batch it works on (ticket + 1; 0 = none), which sample, how many so far,
# its process, and how that ended (status as of os.waitpid, + 1; 0 = it has not).
TICKET, SAMPLE, COUNT, PROCESS, ENDED = range(5)
LINE = 5 * 8  # bytes


class Buffers:
    def __init__(
        self, count: int, batch_shape: tuple[int, ...], workers: int, file: int | None = None
    ) -> None:
        """In `file`, or in a new one; in no file where there are no workers to share it with.

        They are pickled by the number of their file, which a worker process inherits.
        """
        self.count, self.batch_shape, self.workers = count, batch_shape, workers
        batch = _pages(int(np.prod(batch_shape)))
        board = _pages(workers * LINE)
        size = board + count * batch
        if size > memory():
            shape = " × ".join(map(str, batch_shape))
            raise UserError(
                f"{count} batches of {shape} take {size / 1e9:,.1f} GB, this machine has "
                f"{memory() / 1e9:,.1f}: take smaller ones, or fewer by data.loading.batches"
            )
        if file is None and workers:
            file = os.memfd_create("batches", os.MFD_CLOEXEC)
            os.ftruncate(file, size)
        self.file = file
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE | (0 if file is not None else mmap.MAP_ANONYMOUS)
        self.memory = np.frombuffer(mmap.mmap(-1 if file is None else file, size, flags=flags), np.uint8)
        self.board = self.memory[: workers * LINE].view(np.int64).reshape(workers, LINE // 8)
        self._batches = self.memory[board:].reshape(count, batch)

    def __reduce__(self) -> tuple[type, tuple[int, tuple[int, ...], int, int | None]]:
        return Buffers, (self.count, self.batch_shape, self.workers, self.file)

    def batch(self, index: int) -> np.ndarray:
        """A view of the shared memory: what is written into it is seen by all processes."""
        return self._batches[index, : int(np.prod(self.batch_shape))].reshape(self.batch_shape)

    def close(self) -> None:
        """The memory itself lives as long as somebody holds a batch of it."""
        if self.file is not None:
            os.close(self.file)
            self.file = None


def _pages(size: int) -> int:
    return max(1, -(-size // PAGE)) * PAGE
