"""When each word is said, and how often wrongly: in laboratories simulated image by image."""

import math

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from ablations.reporting.judging.difference import Difference
from ablations.reporting.judging.verdicts import Question, holm, judge_figure, judge_pairs, judge_range
from benchmarks.verdicts import PRINTED, laboratory, power, questions, rates


def gap(value: float, error: float = 0.1) -> Difference:
    return Difference(value, error, math.inf)


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        (gap(0.0, 0.15), "equivalent"),
        (gap(-0.3), "equivalent"),  # 0.2 is two errors within the margin
        (gap(0.4), "differs"),
        (gap(-0.8), "differs"),
        (gap(0.9), "differs"),  # better is no equivalence either
        (gap(0.0, 0.4), "inconclusive"),
        (gap(0.6, 0.4), "inconclusive"),
    ],
)
def test_a_figure_beside_the_papers(delta, expected):
    assert judge_figure(delta) == expected


@pytest.mark.parametrize(
    ("found", "paper", "expected"),
    [
        (gap(0.3), 0.2, "confirmed"),
        (gap(-0.3), 0.2, "opposite"),
        (gap(0.15), 0.2, "inconclusive"),
        (gap(0.05), 0.0, "equivalent"),
        (gap(0.2), 0.0, "differs"),
        (gap(0.15), 0.0, "inconclusive"),
        (gap(0.3), None, "ahead"),
        (gap(-0.3), None, "behind"),
        (gap(0.1), None, "inconclusive"),
    ],
)
def test_a_pair_of_rows(found, paper, expected):
    ((verdict, _),) = judge_pairs([Question(found, paper)])
    assert verdict == expected


def test_many_pairs_need_more_than_one():
    asked = [Question(gap(0.22), 0.2), *(Question(gap(0.01), 0.2) for _ in range(5))]
    assert judge_pairs(asked[:1])[0][0] == "confirmed"
    assert judge_pairs(asked)[0][0] == "inconclusive"
    assert judge_pairs([]) == []


def test_the_correction_is_holms():
    draws = np.random.default_rng(0)
    for _ in range(20):
        ps = draws.random(7) ** 3
        assert holm(list(ps)) == pytest.approx(multipletests(ps, method="holm")[1])


def test_a_control_needs_every_seed_within_its_range():
    assert judge_range([99.0, 96.0], (95.0, 100.0)) == "as expected"
    assert judge_range([99.0, 94.0], (95.0, 100.0)) == "not as expected"


def test_the_laboratory_has_the_noise_that_was_measured():
    draws = np.random.default_rng(0)
    means, within, across = [], [], []
    for _ in range(20):
        one, other = laboratory(draws, (0, 0), 2)
        means += [run.mean() for run in one + other]
        within += [(one[0] ^ one[1]).mean(), (other[0] ^ other[1]).mean()]
        across += [(one[0] ^ other[0]).mean(), (one[1] ^ other[1]).mean()]
    assert np.mean(means) == pytest.approx(0.813, abs=0.001)
    assert np.std(means) == pytest.approx(0.0012, rel=0.25)
    assert np.mean(within) == pytest.approx(0.075, abs=0.001)
    assert np.mean(across) - np.mean(within) == pytest.approx(0.010, abs=0.001)


@pytest.mark.slow
def test_of_rows_without_an_effect_one_pair_in_twenty_differs_and_one_table_in_twenty_says_so():
    found = rates((-0.1,) * len(PRINTED), 3, laboratories=150)
    assert found["now: of the pairs, p < 0.05 uncorrected"] == pytest.approx(5, abs=3)
    assert found["now: some pair confirmed or opposite"] <= 9
    assert found["before: all figures reproduced"] > 90  # the rule before found them all reproduced


@pytest.mark.slow
def test_a_true_gap_is_found_as_often_as_planned():
    """Of 0.3 points, with three seeds."""
    assert power(0.3, 3, laboratories=150) == pytest.approx((17, 71), abs=10)


def test_the_interval_of_an_effect_holds_the_truth():
    draws = np.random.default_rng(2)
    held = []
    for _ in range(150):
        asked = questions(laboratory(draws, (0.3, 0, 0, 0), 3, 20_000), (2, 1, 0, 0))
        held.append(abs(asked[0].difference.value - 0.3) <= asked[0].difference.half)
    assert np.mean(held) == pytest.approx(0.95, abs=0.05)
