"""How far accuracies move by chance: from one run to the next, and with the images.

All in percent points. e = √(p(1−p)/N) is the noise of one network on N images. Between seeds of one cell an
accuracy moves by s, which is pooled over the cells of a table. Two methods are compared on the same images;
what the choice of images adds to their difference is τ/√N, where τ² is the mean square by which the methods
differ in the chance to get an image right. It follows from the share D of images on which two runs disagree:
τ² = D_AB − (D_AA + D_BB)/2.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

# Where nothing was measured, in units of e. At 81 % of ImageNet they are 0.12 and 0.045 points.
ASSUMED_SEEDS = 0.7
ASSUMED_IMAGES = 0.26


@dataclass(frozen=True)
class SeedNoise:
    """s of a column of a table."""

    s: float
    freedom: float  # degrees of; infinite where it is assumed
    assumed: bool

    def source(self, *runs: int) -> str:
        """Whence s is for cells of so many runs, if not from themselves."""
        if self.assumed:
            return "s assumed"
        return "s of other rows" if 1 in runs else ""


@dataclass(frozen=True, eq=False)
class RightCounts:
    """In how many of a cell's runs each image was right."""

    right: np.ndarray  # int [images]
    runs: int

    @classmethod
    def of(cls, runs: Sequence[np.ndarray]) -> "RightCounts":
        return cls(np.asarray(runs).sum(0, dtype=np.int64), len(runs))

    def disagreement(self) -> float | None:
        """The share of images on which two of the cell's runs disagree; None for one run."""
        n, k = self.runs, self.right
        return None if n < 2 else float((k * (n - k)).mean() * 2 / (n * (n - 1)))

    def disagreement_with(self, other: "RightCounts") -> float:
        a, b = (self.right, self.runs), (other.right, other.runs)
        return float((a[0] * (b[1] - b[0]) + (a[1] - a[0]) * b[0]).mean() / (a[1] * b[1]))


def evaluation_noise(percent: float, images: int) -> float:
    """e: 0.17 points at 81 % of 50,000.

    One right and one wrong image are added, so that 100 % is not taken for certainty.
    """
    share = (percent / 100 * images + 1) / (images + 2)
    return 100 * math.sqrt(share * (1 - share) / images)


def seed_noise(cells: Iterable[Sequence[float]], evaluation: float, images: int) -> SeedNoise:
    """Pooled over cells, each the accuracies of its seeds; assumed where no cell has two.

    Runs may come out equal by chance, so that s is at least an image.
    """
    several = [values for values in cells if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return SeedNoise(ASSUMED_SEEDS * evaluation, math.inf, assumed=True)
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in several)
    return SeedNoise(max(math.sqrt(squares / freedom), 100 / images), freedom, assumed=False)


def image_noise(one: RightCounts | None, other: RightCounts | None, evaluation: float) -> float:
    """τ/√N of two cells; assumed where one has no answers, or those of a single run."""
    if one is None or other is None or len(one.right) != len(other.right):
        return ASSUMED_IMAGES * evaluation
    own = one.disagreement(), other.disagreement()
    if own[0] is None or own[1] is None:
        return ASSUMED_IMAGES * evaluation
    square = one.disagreement_with(other) - (own[0] + own[1]) / 2
    return 100 * math.sqrt(max(0.0, square) / len(one.right))
