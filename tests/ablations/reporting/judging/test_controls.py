"""The controls find what is so, and what is not."""

import json

import numpy as np
import pytest

from ablations import report
from ablations.reporting.collect import collect
from ablations.reporting.judging.controls import plant
from ablations.reporting.judging.difference import Difference
from ablations.reporting.sizes import _key
from ablations.reporting.tables import Check
from ablations.spec import composed, load
from pipeline.runs.answers import as_text
from tests.ablations.recorded import DIGITS, Shelf
from tnt.complexity.formulas import model_macs

SWITCHES = load("switches")["switches"]
NETWORK = "the switch reaches the network"


def checks(shelf: Shelf, name: str) -> list[Check]:
    found = collect([shelf.folder], "demo", counted=report.KEPT)
    known = [check for table in found.tables if table.ablation == name for check in table.checks]
    return [check for check in known if check.what != NETWORK]


def fill(shelf: Shelf, rates: list[float]) -> None:
    """A seed for each rate; the images are the harder the later they come."""
    draws = np.random.default_rng(0)
    for seed, rate in enumerate(rates):
        right = np.linspace(0, 1, DIGITS) + draws.normal(0, 0.2, DIGITS) < rate
        top1 = 100 * int(right.sum()) / DIGITS
        shelf.add("repeats", "plain", top1, seed, right=as_text(right))


def test_seeds_of_one_row_do_not_differ_and_a_planted_effect_is_found(shelf):
    fill(shelf, [0.8, 0.81, 0.79, 0.8, 0.8, 0.81])
    same, planted, least = checks(shelf, "repeats")
    assert (same.expected, same.verdict) == ("0", "as expected")
    assert (least.found, least.verdict) == ("85 % of 20", "as expected")
    assert planted.verdict == "as expected"
    assert float(planted.expected) > 1
    assert abs(float(planted.found.split()[0].replace("−", "-")) - float(planted.expected)) < 2


def test_a_judge_that_sees_less_than_it_says_is_noticed(shelf, monkeypatch):
    """Who says that it sees a fifth of that finds little; who says three times as much finds all."""
    fill(shelf, [0.5, 0.51, 0.49, 0.5, 0.5, 0.51])
    honest = Difference.could_see
    for factor in (0.2, 3):
        monkeypatch.setattr(Difference, "could_see", lambda gap, by=factor: by * honest(gap))
        *_, least = checks(shelf, "repeats")
        assert least.verdict == "not as expected", factor


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
    macs = model_macs(composed(SWITCHES, SWITCHES.cell("plain")).model.network)
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


def test_without_a_run_every_switch_of_every_table_gives_another_loss(shelf):
    found = collect([shelf.folder], "demo", counted=report.KEPT)
    told = {table.name: [each for each in table.checks if each.what == NETWORK] for table in found.tables}
    assert {name: len(each) for name, each in told.items() if each} == {
        "table4": 3,
        "table5": 3,
        "table6": 3,
        "table7": 2,
        "table8": 1,
        "se": 3,
        "pyramid": 2,
        "control": 1,
        "switches": 6,
    }
    assert {each.verdict for checks in told.values() for each in checks} == {"as expected"}


def test_a_switch_that_changes_nothing_is_noticed(shelf, tmp_path):
    """Where one head has the loss of four."""
    kept = json.loads(report.KEPT.read_text())
    plain, heads = (
        name
        for wanted in (4, 1)
        for name in kept["sizes"]
        if name == _key(composed(SWITCHES, SWITCHES.cell("heads")).model.network.replace(inner_heads=wanted))
    )
    kept["sizes"][heads]["first_step"] = kept["sizes"][plain]["first_step"]
    (tmp_path / "sizes.json").write_text(json.dumps(kept))
    found = collect([shelf.folder], "demo", counted=tmp_path / "sizes.json")
    (table,) = [each for each in found.tables if each.name == "switches"]
    assert [each.label for each in table.checks if each.verdict == "not as expected"] == ["1 inner head"]
    assert report.unexpected(table)


def test_what_is_planted_is_as_much_as_was_asked_for():
    runs = [np.arange(1000) % 5 > 0, np.arange(1000) % 4 > 0]
    for before, after in zip(runs, plant(runs, 30, seed=1), strict=True):
        assert after.sum() - before.sum() == 30
        assert after[before].all()


def test_what_differs_is_shown_to_the_digit_in_which_it_does(shelf):
    macs = model_macs(composed(SWITCHES, SWITCHES.cell("plain")).model.network)
    shelf.add("switches", "plain", 40.0, params=452_554, macs=macs, first_step=(2.2996793, 3.2800214))
    shelf.add("switches", "heads", 40.0, params=452_554, macs=macs, first_step=(2.299679, 3.2800226))
    (check,) = checks(shelf, "switches")
    assert check.verdict == "as expected"
    assert check.expected.removeprefix("452,554 parameters; not ") != check.found.removeprefix(
        "452,554 parameters; "
    )
