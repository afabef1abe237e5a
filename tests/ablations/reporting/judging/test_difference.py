"""Intervals and tests beside those of scipy.stats and statsmodels, which take the samples themselves."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import ttost_ind

from ablations.reporting.judging.difference import Difference, difference

ONE, OTHER = [81.3, 81.45, 81.2, 81.25], [81.0, 81.1, 80.85]


@pytest.fixture
def pooled() -> Difference:
    """Of both samples, with their common variance."""
    freedom = len(ONE) + len(OTHER) - 2
    squares = sum(statistics.variance(each) * (len(each) - 1) for each in (ONE, OTHER))
    runs = squares / freedom * (1 / len(ONE) + 1 / len(OTHER))
    return difference(statistics.fmean(ONE) - statistics.fmean(OTHER), runs, freedom, 0.0)


def test_the_difference_of_two_samples_is_students(pooled):
    theirs = stats.ttest_ind(ONE, OTHER)
    assert pooled.p() == pytest.approx(theirs.pvalue)
    low, high = theirs.confidence_interval()
    assert (pooled.value - pooled.half, pooled.value + pooled.half) == pytest.approx((low, high))


@pytest.mark.parametrize("margin", [0.2, 0.5, 1.0])
def test_equivalence_is_the_larger_of_two_one_sided_tests(pooled, margin):
    theirs, _, _ = ttost_ind(ONE, OTHER, -margin, margin)
    assert pooled.p_beyond(margin) == pytest.approx(theirs)


def test_freedom_is_satterthwaites():
    """With variances of two samples, of which one is known well, as Welch has it."""
    many = np.random.default_rng(0).normal(80, 0.3, 10_000)
    theirs = stats.ttest_ind(ONE, many, equal_var=False)
    runs = statistics.variance(ONE) / len(ONE)
    ours = difference(statistics.fmean(ONE) - many.mean(), runs, len(ONE) - 1, many.var() / len(many))
    assert ours.freedom == pytest.approx(theirs.df, rel=0.01)
    assert difference(0.3, 0.01, math.inf, 0.01).freedom == math.inf


def test_an_error_that_is_known_gives_the_normal_distribution():
    known = Difference(0.3, 0.1, math.inf)
    assert known.p() == pytest.approx(2 * stats.norm.sf(3))
    assert known.half == pytest.approx(0.196, abs=1e-4)


@pytest.mark.parametrize(
    ("seeds", "pairs", "gap"),
    [(1, 1, 0.49), (3, 1, 0.33), (5, 1, 0.26), (10, 1, 0.19), (1, 6, 0.62), (3, 6, 0.45), (5, 6, 0.33)],
)
def test_the_gap_that_four_cells_could_see(seeds, pairs, gap):
    """As simulated image by image, with s = 0.12 and τ/√N = 0.045."""
    freedom = 4 * (seeds - 1) or math.inf
    found = difference(0.0, 0.12**2 * 2 / seeds, freedom, 0.045**2)
    assert found.could_see(0.05 / pairs) == pytest.approx(gap, abs=0.015)
