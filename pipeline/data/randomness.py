"""Keyed random numbers: a draw is a function of (seed, purpose, epoch, position), never of earlier draws.

Philox is a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
its n-th output is a function of key and n. A row of draws therefore belongs to its position, whichever
process computes it, in whatever order, alone or in a table.
"""

from enum import IntEnum

import numpy as np

WORD = (1 << 64) - 1


class Purpose(IntEnum):
    """One stream per use, so that one more draw here never moves a draw there."""

    ORDER = 1
    SUBSTITUTE = 2
    CROP = 3
    POLICY = 4
    ERASE = 5
    NOISE = 6
    MIX = 7
    WEIGHTS = 8  # at the start
    PATHS = 9  # dropped
    INTERPOLATION = 10


def philox(seed: int, purpose: Purpose, epoch: int, high: int = 0, low: int = 0) -> np.random.Philox:
    """The stream of `purpose` that starts at counter (low, high, epoch)."""
    counter = np.array([low & WORD, high & WORD, epoch & WORD, 0], np.uint64)
    return np.random.Philox(counter=counter, key=np.array([seed & WORD, purpose], np.uint64))


def uniforms(seed: int, purpose: Purpose, epoch: int, positions: np.ndarray, count: int) -> np.ndarray:
    """float64 [len(positions), count] in [0, 1): row i depends on positions[i] alone."""
    return (words(seed, purpose, epoch, positions, count) >> np.uint64(11)) * 2.0**-53


def words(seed: int, purpose: Purpose, epoch: int, positions: np.ndarray, count: int) -> np.ndarray:
    """uint64 [len(positions), count]: row i depends on positions[i] alone."""
    blocks = -(-count // 4)  # a Philox counter yields four 64-bit words
    table = np.empty((len(positions), 4 * blocks), np.uint64)
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    for start, stop in zip([0, *breaks], [*breaks, len(positions)], strict=True):
        if start < stop:
            stream = philox(seed, purpose, epoch, low=int(positions[start]) * blocks)
            table[start:stop] = stream.random_raw((stop - start) * 4 * blocks).reshape(stop - start, -1)
    return table[:, :count]
