"""What stands between two rows: gaps, the paper's beside ours, and what gap seeds could see."""

import numpy as np
import pytest

from ablations.reporting.collect import Report
from ablations.reporting.tables import Effect, said
from pipeline.runs.answers import as_text
from tests.ablations.recorded import collected, entry, table


def effects_of(found: Report, name: str) -> dict[tuple[str, str], Effect]:
    return {(each.ahead, each.behind): each for each in table(found, name).effects if each.column == "top1"}


def test_a_fifth_of_a_point_between_single_seeds_is_inconclusive(shelf):
    shelf.fill("inner_heads", {"4": [81.3], "8": [81.1]})
    found = effects_of(collected(shelf), "inner_heads")
    one = found["table6/4", "table6/8"]
    assert (one.ours, one.paper) == (pytest.approx(0.2), 0.2)
    assert said(one) == "inconclusive (could have seen 0.50; s assumed)"
    assert found["table6/2", "table6/1"].verdict == "not run"
    assert found["table6/2", "table6/4"].paper == 0


def test_seeds_make_an_effect_of_a_difference(shelf):
    shelf.fill(
        "inner_heads", {"1": [80.9, 81.0, 81.1], "4": [81.45, 81.55, 81.65], "2": [81.3], "8": [80.2, 80.3]}
    )
    found = effects_of(collected(shelf), "inner_heads")
    assert found["table6/4", "table6/1"].verdict == "confirmed"
    assert found["table6/8", "table6/1"].verdict == "opposite"
    assert found["table6/2", "table6/8"].source == "s of other rows"
    assert found["table6/4", "table6/1"].half == pytest.approx(0.25, abs=0.05)


def test_what_runs_answered_decides_how_far_the_images_matter(shelf):
    """Two cells of which each has twice the same answers, and of which the one errs on other images."""
    images = np.arange(50_000)
    one, other, apart = images % 5 > 0, images % 5 > 0, images % 5 > 1
    other = np.where(images < 200, True, other)
    for cell, right in (("1", one), ("2", other), ("4", np.where(images < 200, True, apart))):
        for seed in (0, 1):
            top1 = 100 * int(right.sum()) / 50_000
            shelf.add("inner_heads", cell, top1, seed, right=as_text(right))
    shelf.fill("inner_heads", {"8": [80.0, 80.2]})  # without answers; it says what the seeds do
    found = effects_of(collected(shelf), "inner_heads")
    few, many = found["table6/2", "table6/1"], found["table6/4", "table6/1"]
    assert few.ours == pytest.approx(0.08)
    assert many.half > 2 * few.half


def test_rows_may_differ_without_the_paper(shelf):
    shelf.fill("se", {"none": [81.3, 81.35], "inner": [82.0, 82.05]})
    one = effects_of(collected(shelf), "se")["se/inner", "se/none"]
    assert (one.paper, one.verdict) == (None, "ahead")


def test_the_papers_headline_is_an_effect(shelf):
    for seed, (tnt, deit) in enumerate([(81.3, 79.8), (81.4, 79.9)]):
        shelf.add("imagenet", "tnt_s", tnt, seed)
        shelf.add("imagenet", "deit_s", deit, seed, params=22_050_664)
    found = collected(shelf)
    one = effects_of(found, "imagenet")["table4/tnt_s", "table4/deit_s"]
    assert (one.paper, one.verdict) == (1.5, "confirmed")
    assert entry(table(found, "recipe"), "deit_s").values == (79.8, 79.9)  # the same runs
    (row,) = [row for row in table(found, "imagenet").rows if row.label == "DeiT-S"]
    assert (row.params, row.paper_params) == (22_050_664, 22.1)


def test_a_papers_table_says_what_gap_its_seeds_could_see_and_what_its_gaps_need(shelf):
    (note,) = table(collected(shelf), "inner_heads").notes
    assert "1 seed a row could see a gap of 0.62 points (6 pairs, corrected; s assumed)" in note
    assert "more than 50 for 0.1, 25 for 0.2, 7 for 0.3" in note
    shelf.fill("inner_heads", {"4": [81.3, 81.2, 81.25]})
    (note,) = table(collected(shelf), "inner_heads").notes
    assert "3 seeds a row could see a gap of 0.44" in note
