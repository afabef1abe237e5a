"""Noise between seeds, and of images on which two methods differ."""

import math
import random
import statistics

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from ablations.reporting.judging.difference import Difference
from ablations.reporting.judging.noise import RightCounts, evaluation_noise, image_noise, seed_noise

IMAGENET = 50_000


def test_evaluation_noise_is_the_binomials():
    assert evaluation_noise(81.3, IMAGENET) == pytest.approx(0.174, abs=5e-4)
    assert evaluation_noise(98.7, 10_000) == pytest.approx(100 * math.sqrt(0.987 * 0.013 / 10_000), rel=1e-2)
    draws = random.Random(0)
    shares = [100 * sum(draws.random() < 0.8 for _ in range(500)) / 500 for _ in range(2000)]
    assert statistics.stdev(shares) == pytest.approx(evaluation_noise(80.0, 500), rel=0.05)


@pytest.mark.parametrize("percent", [0.0, 100.0])
def test_no_accuracy_is_certain(percent):
    assert 0 < evaluation_noise(percent, IMAGENET) < 0.01


def test_seeds_of_cells_are_pooled():
    found = seed_noise([[80.0, 80.4, 80.2], [70.1, 70.3, 70.5], [75.0]], 0.17, IMAGENET)
    assert (found.s, found.freedom) == (pytest.approx(0.2), 4)
    assert found.source(3, 3) == ""
    assert found.source(1, 3) == "s of other rows"


def test_without_two_seeds_anywhere_the_noise_is_assumed_and_that_is_said():
    found = seed_noise([[81.0], [81.2]], 0.174, IMAGENET)
    assert (found.s, found.freedom) == (pytest.approx(0.12, abs=0.005), math.inf)
    assert found.source(1, 1) == "s assumed"


def test_runs_that_are_equal_by_chance_are_not_taken_for_certain():
    assert seed_noise([[97.5, 97.5]], 0.8, 400).s == 0.25


def images(*rates: float, runs: int, count: int = 200_000) -> list[RightCounts]:
    """Cells whose runs are right on images by chance; half of the images are harder by the rates' halves."""
    draws = np.random.default_rng(0)
    hard = np.where(np.arange(count) % 2, 0.5, 1.0)
    return [RightCounts.of(draws.random((runs, count)) < rate * hard) for rate in rates]


def test_the_noise_of_images_is_of_the_methods_and_not_of_their_runs():
    """τ² is the mean square of the difference of chances, which is known here."""
    cells = images(0.9, 0.8, runs=3)
    known = 100 * math.sqrt(statistics.fmean([0.1**2, 0.05**2]) / 200_000)
    assert image_noise(*cells, 1.0) == pytest.approx(known, rel=0.1)
    same = images(0.9, 0.9, runs=3)
    assert image_noise(*same, 1.0) < known / 4


def test_disagreement_is_that_of_all_pairs_of_runs():
    runs = np.random.default_rng(1).random((5, 1000)) < 0.7
    one, other = RightCounts.of(runs[:3]), RightCounts.of(runs[3:])
    pairs = [(a, b) for a in range(3) for b in range(a)]
    assert one.disagreement() == pytest.approx(statistics.fmean((runs[a] ^ runs[b]).mean() for a, b in pairs))
    across = [(runs[a] ^ runs[b]).mean() for a in range(3) for b in (3, 4)]
    assert one.disagreement_with(other) == pytest.approx(statistics.fmean(across))
    assert RightCounts.of(runs[:1]).disagreement() is None


def test_runs_without_chance_are_compared_as_mcnemar_compares_two_classifiers():
    draws = np.random.default_rng(2)
    first, second = draws.random(5000) < 0.8, draws.random(5000) < 0.8
    second[:4000] = first[:4000]
    one, other = RightCounts.of([first, first]), RightCounts.of([second, second])
    gap = 100 * (first.mean() - second.mean())
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    theirs = mcnemar([[0, b], [c, 0]], exact=False, correction=False).pvalue
    ours = Difference(gap, image_noise(one, other, 1.0), math.inf).p()
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_without_answers_or_with_those_of_one_run_it_is_assumed():
    (one,) = images(0.9, runs=2)
    single = RightCounts.of([one.right > 0])
    for other in (None, single):
        assert image_noise(one, other, 0.174) == pytest.approx(0.045, abs=0.001)
