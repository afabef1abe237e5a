"""Whether a number agrees with the paper's, and whether an ordering of rows holds.

All in percent points. σ² of a difference is e² + s²·(1/a + 1/b): e is the noise of evaluating on N images,
√(p(1−p)/N), counted once since both networks see the same images; s is that of a run, over the a and b runs
compared, the paper's being one run. s² is the pooled variance of the table's seeds with e² as one more
observation, so that a single seed is not taken for certainty.

* reproduced: the paper's figure lies within 2e of our mean; evaluation alone explains the difference.
* within noise: not so, but within 2σ; differs: beyond 2σ.
* an ordering is supported when our difference has the paper's sign and exceeds 2σ, contradicted when it has
  the other sign and exceeds 2σ, and otherwise not supported.
"""

import math
import statistics
from collections.abc import Iterable, Sequence

REPRODUCED = "reproduced"
WITHIN_NOISE = "within noise"
DIFFERS = "differs"
NOT_RUN = "not run"
MEASURED = "measured"  # nothing to compare it with
REPORTED = "reported"  # by the paper, of a network that we do not run
EXPECTED = "as expected"
UNEXPECTED = "not as expected"

SUPPORTED = "supported"
NOT_SUPPORTED = "not supported"
CONTRADICTED = "contradicted"

# For colours; the word is always shown beside them.
GOOD = (REPRODUCED, EXPECTED, SUPPORTED)
FAIR = (WITHIN_NOISE, NOT_SUPPORTED)
BAD = (DIFFERS, UNEXPECTED, CONTRADICTED)

FACTOR = 2.0


def evaluation_noise(percent: float, images: int) -> float:
    """Standard deviation of an accuracy on so many images: 0.17 points at 81 % of 50,000.

    One right and one wrong image are added, so that 100 % is not taken for certainty.
    """
    share = (percent / 100 * images + 1) / (images + 2)
    return 100 * math.sqrt(share * (1 - share) / images)


def run_noise(seeds: Iterable[Sequence[float]], evaluation: float) -> float:
    """Standard deviation of a run: pooled over cells, each the values of its seeds."""
    several = [values for values in seeds if len(values) > 1]
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in several)
    freedom = sum(len(values) - 1 for values in several)
    return math.sqrt((squares + evaluation**2) / (freedom + 1))


def difference_noise(evaluation: float, run: float, a: int, b: int) -> float:
    """Standard deviation of the difference of the means of a and b runs."""
    return math.sqrt(evaluation**2 + run**2 * (1 / a + 1 / b))


def judge(delta: float, evaluation: float, noise: float) -> str:
    """The verdict on a number beside the paper's."""
    if abs(delta) <= FACTOR * evaluation:
        return REPRODUCED
    return WITHIN_NOISE if abs(delta) <= FACTOR * noise else DIFFERS


def judge_range(values: Sequence[float], within: tuple[float, float]) -> str:
    """The verdict on a control: every seed must lie in the range."""
    low, high = within
    return EXPECTED if all(low <= value <= high for value in values) else UNEXPECTED


def judge_order(gap: float, noise: float) -> str:
    """`gap` is ours, in the paper's direction."""
    if abs(gap) <= FACTOR * noise:
        return NOT_SUPPORTED
    return SUPPORTED if gap > 0 else CONTRADICTED
