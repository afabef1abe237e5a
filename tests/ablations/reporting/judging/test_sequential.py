"""Runs that are added after looks at the results: the error stays, and nothing is run that cannot decide."""

import dataclasses
import math

import numpy as np
import pytest

from ablations.reporting.judging import sequential
from ablations.reporting.judging.difference import LEVEL, Difference
from ablations.reporting.judging.noise import SeedNoise
from ablations.reporting.judging.verdicts import Question, judge_pairs
from benchmarks.verdicts import sequential_rates

NOISE = SeedNoise(0.12, math.inf, assumed=False)


def test_the_looks_share_the_error():
    assert sum(sequential.SHARES.values()) == pytest.approx(1)
    p = LEVEL * 0.9
    seen = Difference(
        -0.1 * next(z for z in np.arange(0, 5, 0.001) if Difference(z, 1, math.inf).p() < p), 0.1, math.inf
    )
    alone = Question(seen, 0.2)
    assert judge_pairs([alone])[0][0] == "opposite"
    assert judge_pairs([dataclasses.replace(alone, looks=[(seen, 0.55)])])[0][0] == "inconclusive"
    assert judge_pairs([dataclasses.replace(alone, looks=[])]) == [("inconclusive", 1.0)]  # nobody has looked


def test_what_a_look_found_stays_found_in_the_direction_it_saw():
    early, late = Difference(0.9, 0.1, math.inf), Difference(-0.01, 0.1, math.inf)
    asked = Question(late, 0.3, [(early, 0.1), (late, 0.15)])
    assert judge_pairs([asked])[0][0] == "confirmed"


def test_the_chance_is_how_often_the_last_look_decides():
    """Against draws of the further runs, for a gap that was seen to be 0.25 after three runs of each row."""
    draws, seen, runs = np.random.default_rng(0), 0.25, 3
    true = seen + draws.standard_normal(200_000) * NOISE.s * math.sqrt(2 / runs)
    more = sequential.LAST - runs
    later = true + draws.standard_normal(true.size) * NOISE.s * math.sqrt(2 / more)
    last = (runs * seen + more * later) / sequential.LAST
    error = math.hypot(NOISE.s * math.sqrt(2 / sequential.LAST), 0.045)
    share = sequential.SHARES[sequential.LAST]
    level = Difference(1, 1, math.inf)
    found = np.mean(
        [abs(gap) > 0 and Difference(gap, error, math.inf).p() < LEVEL * share / 4 for gap in last[:4000]]
    )
    told = sequential.chance(Question(dataclasses.replace(level, value=seen)), NOISE, (3, 3), 0.045, 4)
    assert told == pytest.approx(found, abs=0.03)


@pytest.mark.parametrize(
    ("value", "paper", "least", "most"),
    [
        (0.6, 0.3, 0.99, 1),
        (0.0, 0.3, 0, 0.1),  # hopeless: not a gap that ten runs show
        (0.0, 0.0, 0.8, 1),  # but they may show that the rows are equal
    ],
)
def test_what_further_runs_may_decide(value, paper, least, most):
    asked = Question(Difference(value, 0.1, math.inf), paper)
    assert least <= sequential.chance(asked, NOISE, (3, 3), 0.045, 4) <= most
    assert sequential.chance(asked, NOISE, (10, 10), 0.045, 4) == 0


def test_a_row_goes_on_for_the_pair_that_needs_most():
    looks = {("a", "b"): 5, ("a", "c"): 7}
    assert sequential.wanted(looks) == {"a": 7, "b": 5, "c": 7}


@pytest.mark.slow
def test_of_tables_without_an_effect_few_say_one_though_they_are_looked_at_four_times():
    found = sequential_rates((-0.1,) * 4, 60)
    assert found["some pair confirmed or opposite"] <= 12
    assert found["runs"] < 36  # of 40: it stops where nothing can be decided
