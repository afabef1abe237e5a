"""Which record stands in which cell, and which must not."""

import dataclasses
import json

import pytest

import ablations
from ablations import spec
from ablations.reporting.cells import cells_of
from ablations.reporting.tables import Entry, Table, delta, file_name
from ablations.reporting.text.grid import grid
from pipeline.errors import UserError
from pipeline.runs import records
from tests.ablations.recorded import collected, entry, record_of, table


def test_without_records_every_cell_is_not_run_and_nothing_of_the_papers_is_ours(shelf):
    found = collected(shelf)
    assert [each.number for each in found.tables] == ["4", "5", "6", "7", "8", *[""] * 7]
    for each in found.tables:
        for row in each.rows:
            for one in row.entries:
                assert (one.mean, one.values) == (None, ())
                assert one.verdict == ("reported" if row.peer else "not run")


def test_rows_and_figures_are_the_papers_in_its_order(shelf):
    found = collected(shelf)
    table4 = table(found, "imagenet")
    assert [row.label for row in table4.rows][:3] == ["ResNet-50", "ResNet-152", "RegNetY-8GF"]
    assert [row.label for row in table4.rows][-3:] == ["ViT-B/16", "DeiT-B", "TNT-B"]
    assert (entry(table4, "tnt_s").paper, entry(table4, "tnt_s").official) == (81.3, 81.5)
    assert (entry(table4, "tnt_b", "top5").paper, entry(table4, "tnt_b", "top5").official) == (96.3, 96.3)
    printed = {name: [e.paper for e in table(found, name).entries if e.column == "top1"] for name in
               ("position_encoding", "inner_heads", "patch_size")}  # fmt: skip
    assert printed == {
        "position_encoding": [80.5, 80.8, 80.7, 81.3],
        "inner_heads": [81.0, 81.3, 81.3, 81.1],
        "patch_size": [81.0, 81.3, 81.1],
    }
    table8 = table(found, "transfer")
    assert table8.columns == ("imagenet", "cifar10", "cifar100", "flowers", "pets")
    rows = {row.label: [one.paper for one in row.entries] for row in table8.rows}
    assert rows["TNT-S↑384"] == [83.1, 98.7, 90.1, 98.8, 94.7]
    assert rows["DeiT-B↑384"] == [83.1, 99.1, 90.8, 98.4, None]


def test_a_later_figure_is_judged_by_its_own(shelf):
    """TNT-S 0.62 above the paper's figure and 0.42 above the later one; TNT-Ti has the later alone."""
    for seed in range(5):
        shelf.add("imagenet", "tnt_s", 81.90 + 0.01 * seed, seed=seed)
        shelf.add("imagenet", "tnt_ti", 73.88 + 0.01 * seed, seed=seed)
    table4 = table(collected(shelf), "imagenet")
    small, tiny = entry(table4, "tnt_s"), entry(table4, "tnt_ti")
    assert (small.paper, small.official) == (81.3, 81.5)
    assert (round(small.delta, 2), round(small.later_delta, 2)) == (0.62, 0.42)
    assert (small.verdict, small.later_verdict) == ("differs", "equivalent")
    assert (tiny.paper, tiny.official) == (None, 73.9)
    assert (tiny.verdict, tiny.later_verdict) == ("measured", "equivalent")
    [line] = [line for line in grid(table4).lines if line[0] == "TNT-Ti"]
    assert line[-1] == "measured; later: equivalent"
    assert any(note.startswith("later: the README of the authors' code") for note in table4.notes)


def test_sizes_are_counted_for_all_that_timm_has_and_shown_as_reported_for_the_two_that_it_lacks(shelf):
    rows = {row.label: row for row in table(collected(shelf), "imagenet").rows}
    assert rows["TNT-S"].params == 23_768_584
    assert rows["TNT-S"].params_frozen == 23_843_848
    assert rows["TNT-S"].macs == 5_216_875_008
    assert (rows["TNT-S"].paper_params, rows["TNT-S"].paper_macs) == (23.8, 5.2)
    assert rows["DeiT-S"].params == 22_050_664
    without = [label for label, row in rows.items() if row.params is None]
    assert without == ["GhostNet-A", "T2T-ViT_t-14"]
    assert all("not in timm" in rows[label].notes[0] for label in without)


def test_seeds_are_averaged(shelf):
    shelf.fill("inner_heads", {"2": [81.0, 81.2, 81.4]})
    one = entry(table(collected(shelf), "inner_heads"), "2")
    assert (one.mean, one.n, one.seeds) == (pytest.approx(81.2), 3, (0, 1, 2))
    assert one.std == pytest.approx(0.2)
    assert one.delta == pytest.approx(-0.1)
    assert one.verdict == "inconclusive"  # three seeds that differ by 0.2 leave ±0.57
    shelf.fill("inner_heads", {"4": [81.2, 81.25, 81.35]})
    assert entry(table(collected(shelf), "inner_heads"), "4").verdict == "equivalent"


def test_tables_share_the_run_that_is_in_all_of_them(shelf):
    record = shelf.add("inner_heads", "4", 81.2)
    found = collected(shelf)
    places = [("inner_heads", "4"), ("patch_size", "4"), ("position_encoding", "both"), ("se", "none"),
              ("imagenet", "tnt_s")]  # fmt: skip
    for name, cell in places:
        assert entry(table(found, name), cell).records == (record.id,)
    assert not found.others


def test_a_demo_number_never_stands_in_a_papers_cell(shelf):
    shelf.add("inner_heads", "4", 97.0, overrides=["scale=demo"])
    assert not any(one.values for each in collected(shelf).tables for one in each.entries)
    demo = collected(shelf, "demo")
    one = entry(table(demo, "inner_heads"), "4")
    assert (one.values, one.paper, one.official, one.verdict) == ((97.0,), None, None, "measured")
    assert all(e.paper is None for each in demo.tables for e in each.entries)
    assert all(each.paper is None for one in demo.tables for each in one.effects)
    assert not [each for each in demo.tables if each.effects and "nothing about the paper" not in each.why]
    assert not any(row.peer for each in demo.tables for row in each.rows)


def test_another_protocol_is_a_table_of_its_own_without_the_papers_figures(shelf):
    shelf.fill("inner_heads", {"2": [79.0], "4": [79.2]}, ["recipe.epochs=100"])
    found = collected(shelf)
    assert not any(one.values for one in table(found, "inner_heads").entries)
    other = table(found, "inner_heads", "recipe.epochs=100")
    assert entry(other, "2").values == (79.0,)
    assert {one.verdict for one in other.entries} == {"measured", "not run"}
    assert all(one.paper is None for one in other.entries)
    (effect,) = [each for each in other.effects if each.ours is not None and each.column == "top1"]
    assert (effect.paper, effect.verdict) == (None, "inconclusive")
    # It was asked for by one ablation: no other shows it.
    assert [each.ablation for each in found.tables if each.protocol] == ["inner_heads"]


def test_a_run_that_somebody_made_for_himself_belongs_to_no_table(shelf):
    record = shelf.add("inner_heads", "4", 79.2, overrides=["recipe.epochs=100"], asked=False)
    found = collected(shelf)
    assert found.others == (record.id,)
    assert not any(each.protocol for each in found.tables)


def test_a_run_on_a_part_of_imagenet_is_not_the_papers(shelf):
    whole = shelf.add("inner_heads", "4", 81.2)
    config = spec.composed(spec.load("se")["se"], spec.load("se")["se"].cell("outer"), [])
    short = shelf.put(record_of(config, 81.6, steps=whole.steps // 2))
    few = record_of(spec.composed(spec.load("inner_heads")["inner_heads"],
                                  spec.load("inner_heads")["inner_heads"].cell("1"), []), 81.0)  # fmt: skip
    few = shelf.put(dataclasses.replace(few, raw=dataclasses.replace(few.raw, images=500),
                                        ema=dataclasses.replace(few.ema, images=500)))  # fmt: skip
    found = collected(shelf)
    assert entry(table(found, "inner_heads"), "4").records == (whole.id,)
    assert not entry(table(found, "inner_heads"), "1").records
    assert not entry(table(found, "se"), "outer").records
    assert entry(table(found, "se", f"steps={short.steps}"), "outer").paper is None
    assert entry(table(found, "inner_heads", "validation=500"), "1").records == (few.id,)


def test_rows_on_other_bytes_are_not_compared(shelf):
    shelf.fill("inner_heads", {"1": [81.0], "2": [81.1]})
    other = shelf.add("inner_heads", "8", 85.0, fingerprint="e" * 64)
    found = collected(shelf)
    assert not entry(table(found, "inner_heads"), "8").values
    apart = table(found, "inner_heads", "fingerprint=eeeeeeeeeeee")
    assert entry(apart, "8").records == (other.id,)
    assert entry(apart, "8").verdict == "measured"


def test_what_differs_beside_the_varied_is_said(shelf):
    shelf.add("inner_heads", "1", 81.0)
    odd = shelf.add("inner_heads", "2", 81.2, commit="d" * 40, dirty=True, versions={"torch": "2.14.0"},
                    skipped_steps=2, damaged_samples=1, device="another")  # fmt: skip
    notes = "\n".join(table(collected(shelf), "inner_heads").notes)
    for words in ("2 commits", "2 versions of torch", "different devices", "changes that",
                  "not finite", "damaged samples"):  # fmt: skip
        assert words in notes
    assert odd.id in notes


def test_a_fine_tuning_counts_only_from_the_run_that_its_row_names(shelf):
    start = shelf.add("imagenet", "tnt_s", 81.3)
    other = shelf.add("imagenet", "tnt_s_se", 81.6)
    right = shelf.add("transfer", "tnt_s-cifar10", 98.6, init=start.id)
    wrong = shelf.add("transfer", "tnt_s-pets", 94.0, init=other.id)
    orphan = shelf.add("transfer", "tnt_s-flowers", 94.0, init="0" * 12)
    found = collected(shelf)
    table8 = table(found, "transfer")
    assert entry(table8, "tnt_s-cifar10", "cifar10").records == (right.id,)
    assert entry(table8, "tnt_s-cifar10", "cifar10").verdict == "equivalent"
    assert not entry(table8, "tnt_s-pets", "pets").values
    assert set(found.others) == {wrong.id, orphan.id}


def test_of_two_runs_of_one_seed_that_of_its_own_start_counts_and_the_other_is_named(shelf):
    starts = [shelf.add("imagenet", "tnt_s", 81.3, seed) for seed in (0, 1)]
    own = shelf.add("transfer", "tnt_s-cifar10", 98.6, 1, init=starts[1].id)
    other = shelf.add("transfer", "tnt_s-cifar10", 90.0, 1, init=starts[0].id)
    found = collected(shelf)
    assert entry(table(found, "transfer"), "tnt_s-cifar10", "cifar10").records == (own.id,)
    (problem,) = found.problems
    assert other.id in problem
    assert "repeats seed 1" in problem


def test_damaged_edited_copied_and_stale_records_are_named_and_left_out(shelf):
    good = shelf.add("inner_heads", "4", 81.2)
    edited = shelf.add("inner_heads", "2", 81.2)
    path = shelf.folder / f"{edited.id}.json"
    path.write_text(path.read_text().replace('"top1": 81.2', '"top1": 83.2'))
    (shelf.folder / "copy.json").write_bytes((shelf.folder / f"{good.id}.json").read_bytes())
    (shelf.folder / "torn.json").write_text("{")
    old = json.loads((shelf.folder / f"{good.id}.json").read_text()) | {"schema": 0}
    (shelf.folder / "old.json").write_text(json.dumps(old))
    newer = json.loads((shelf.folder / f"{good.id}.json").read_text())
    newer["science"]["recipe"]["momentum"] = 0.8
    del newer["sha256"]
    (shelf.folder / "newer.json").write_text(json.dumps(newer | {"sha256": records.digest(newer)}))
    found = collected(shelf)
    assert set(found.records) == {good.id}
    assert not entry(table(found, "inner_heads"), "2").values
    assert len(found.problems) == 5
    for name in (
        edited.id,
        "copy.json",
        "torn.json",
        "old.json",
        "recipe.momentum is unknown",
    ):
        assert sum(name in problem for problem in found.problems) == 1, name


def test_a_network_of_timms_is_no_stale_record(shelf):
    from pipeline.config.overrides import compose

    record = shelf.put(record_of(compose(["model=timm:deit_base_distilled_patch16_224"]), 83.4))
    found = collected(shelf)
    assert not found.problems
    assert found.others == (record.id,)


def test_the_demos_table_8_has_one_column_as_it_has_one_set_of_images(shelf):
    demo = table(collected(shelf, "demo"), "transfer")
    assert demo.columns == ("digits",)
    assert [len(row.entries) for row in demo.rows] == [1, 1]
    assert not demo.notes


def test_cells_that_are_one_run_at_the_demos_scale_are_said(shelf):
    notes = table(collected(shelf, "demo"), "fine_grained").notes
    assert any("one run stands in 2 cells" in note and "pets-1e-4" in note for note in notes)


def test_a_control_is_judged_by_its_range(shelf):
    shelf.add("control", "with", 99.0)
    shelf.add("control", "without", 45.0)
    found = table(collected(shelf, "demo"), "control")
    assert entry(found, "with").verdict == "as expected"
    assert entry(found, "without").verdict == "not as expected"
    assert "control" not in [each.ablation for each in collected(shelf).tables]


def test_an_unknown_scale_is_refused(shelf):
    with pytest.raises(UserError, match=r"unknown scale 'demp' \(did you mean 'demo'\?\)"):
        collected(shelf, "demp")


OWN = """
from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="",
    title="Ours and theirs",
    why="A reader's own question.",
    varies=("model",),
    rows=(
        Cell("deit", ("model=timm:deit_small_patch16_224",), "DeiT-S"),
        Cell("tnt", ("model=tnt_s",), "TNT-S"),
    ),
)
"""


def test_a_file_of_ones_own_is_a_table_too_with_networks_of_timms(shelf, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine_and_theirs.py").write_text(OWN)
    monkeypatch.setattr(ablations, "__path__", [*ablations.__path__, str(tmp_path / "own")])
    monkeypatch.setattr("ablations.reporting.collect.cells_of", cells_of)
    shelf.add("mine_and_theirs", "deit", 79.7, params=22_050_664, macs=4_598_882_304)
    found = table(collected(shelf), "mine_and_theirs")
    assert [row.params for row in found.rows] == [22_050_664, 23_768_584]
    assert entry(found, "deit").verdict == "measured"
    assert entry(found, "tnt").verdict == "not run"


def test_names_of_files_stay_short_and_apart():
    def named(protocol: str) -> str:
        return file_name(Table("se", "", "", "", "paper", ("top1",), (), protocol))

    assert named("") == "se"
    assert named("recipe.epochs=100 seed=1") == "se--recipe.epochs=100-seed=1"
    names = [named("data.name=a/b"), named("data.name=a b"), named("data.name=a:b"), named("x" * 500)]
    assert len(set(names)) == 4
    assert all(len(name) < 130 and "/" not in name for name in names)


def test_a_difference_of_nothing_has_no_minus():
    entry = Entry("table6/1", "top1", paper=81.0, values=(80.9999,))
    assert delta(entry) == "+0.00"
