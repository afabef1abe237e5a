"""The controls find what is so, and what is not."""

import numpy as np
import pytest

from ablations import report
from ablations.reporting.collect import collect
from ablations.reporting.judging.controls import plant
from ablations.reporting.tables import Check
from ablations.spec import composed, load
from pipeline.runs.answers import as_text
from tests.ablations.recorded import DIGITS, Shelf
from tnt.complexity.formulas import model_macs


def checks(shelf: Shelf, name: str) -> list[Check]:
    found = collect([shelf.folder], "demo", counted=report.KEPT)
    return [check for table in found.tables if table.ablation == name for check in table.checks]


def fill(shelf: Shelf, rates: list[float]) -> None:
    """A seed for each rate; the images are the harder the later they come."""
    draws = np.random.default_rng(0)
    for seed, rate in enumerate(rates):
        right = np.linspace(0, 1, DIGITS) + draws.normal(0, 0.2, DIGITS) < rate
        top1 = 100 * int(right.sum()) / DIGITS
        shelf.add("repeats", "plain", top1, seed, right=as_text(right))


def test_seeds_of_one_row_do_not_differ_and_a_planted_effect_is_found(shelf):
    fill(shelf, [0.8, 0.81, 0.79, 0.8, 0.8, 0.81])
    same, planted = checks(shelf, "repeats")
    assert (same.expected, same.verdict) == ("0", "as expected")
    assert planted.verdict == "as expected"
    assert float(planted.expected) > 1
    assert abs(float(planted.found.split()[0].replace("−", "-")) - float(planted.expected)) < 2


def test_groups_that_do_differ_are_noticed(shelf):
    fill(shelf, [0.9, 0.7, 0.91, 0.7, 0.9, 0.71])
    same, *_ = checks(shelf, "repeats")
    assert same.verdict == "not as expected"


def test_nothing_is_planted_where_there_are_too_few_wrong_answers(shelf):
    fill(shelf, [2.0, 2.0, 2.0, 2.0])  # all right
    (same,) = checks(shelf, "repeats")
    assert same.verdict == "as expected"


def test_three_seeds_are_not_split(shelf):
    fill(shelf, [0.8, 0.8, 0.8])
    assert not checks(shelf, "repeats")


@pytest.mark.parametrize(
    ("params", "first", "verdict"),
    [
        (452_554, (2.3, 3.28), "as expected"),
        (452_554, (2.2, 3.27), "as expected"),
        (452_554, (2.3, 3.27), "not as expected"),  # as the plain network: the switch does nothing
        (452_555, (2.2, 3.28), "not as expected"),
    ],
)
def test_a_switch_must_give_its_size_and_another_first_step(shelf, params, first, verdict):
    plain = load("switches")["switches"].cell("plain")
    macs = model_macs(composed(load("switches")["switches"], plain).model.network)
    shelf.add("switches", "plain", 40.0, params=452_554, macs=macs, first_step=(2.3, 3.27))
    shelf.add("switches", "heads", 40.0, params=params, macs=macs, first_step=first)
    (check,) = checks(shelf, "switches")
    assert check.verdict == verdict


def test_rows_of_other_seeds_or_of_earlier_code_are_not_compared(shelf):
    shelf.add("switches", "plain", 40.0, first_step=(2.3, 3.27))
    shelf.add("switches", "heads", 40.0, 1, first_step=(2.2, 3.27))
    shelf.add("switches", "edge", 40.0)
    assert not checks(shelf, "switches")


def test_a_table_of_other_settings_is_not_held_to_these_sizes(shelf):
    for cell, first in (("plain", (2.3, 3.27)), ("heads", (2.2, 3.27))):
        shelf.add("switches", cell, 40.0, overrides=["model.depth=1"], first_step=first)
    assert not checks(shelf, "switches")


def test_what_is_planted_is_as_much_as_was_asked_for():
    runs = [np.arange(1000) % 5 > 0, np.arange(1000) % 4 > 0]
    for before, after in zip(runs, plant(runs, 30, seed=1), strict=True):
        assert after.sum() - before.sum() == 30
        assert after[before].all()
