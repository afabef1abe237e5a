"""`until=decided`: what is asked for next follows from the records alone."""

import numpy as np
import pytest

from ablations import spec
from ablations.reporting import batches
from ablations.reporting.judging import sequential
from pipeline.launch import main
from pipeline.launching.arguments import parse
from pipeline.runs import answers, records
from tests.ablations.recorded import Shelf, record_of

SEEN = {"1": 80.0, "2": 81.3, "4": 81.3, "8": 81.1}
IMAGES = 50_000


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A command line whose records are in a folder of the test, at the paper's scale, without its data."""
    monkeypatch.setattr("pipeline.launching.plan.dataset.prepare", lambda data: None)
    monkeypatch.setattr("pipeline.launching.plan.dataset.fingerprint", lambda data: "f" * 64)
    paths = [f"paths.{name}={tmp_path / name}" for name in ("runs", "records")]

    def request(*words):
        return parse(["ablation=inner_heads", "until=decided", "cluster=local", *paths, *words])

    return request


def finish(run, draws, image, hours=1.0):
    """Publish what a run of that config would leave, right for so many images as its cell has on average."""
    level = SEEN[run.config.about.cell] + draws.normal(0, 0.12)
    right = image < np.quantile(image, level / 100)
    record = record_of(
        run.config,
        100 * int(right.sum()) / IMAGES,
        fingerprint="f" * 64,
        ended=f"2026-02-{run.config.seed + 1:02d}T11:00:00Z",
        device_hours=hours,
        until_decided=run.config.about.until_decided,
        right=answers.as_text(right),
    )
    records.publish(record, run.config.paths.records)


def seeds(runs, folder):
    """Asked for and not done, by cell."""
    found: dict[str, list[int]] = {}
    for run in runs:
        if not records.exists(folder, run.id):
            found.setdefault(run.config.about.cell, []).append(run.config.seed)
    return found


def test_a_table_is_run_to_its_end_batch_by_batch(asked, capsys):
    draws, image = np.random.default_rng(0), np.random.default_rng(1).random(IMAGES)
    began = []

    def act(request, runs):
        folder = runs[0].config.paths.records
        todo = [run for run in runs if not records.exists(folder, run.id)]
        began.append(seeds(runs, folder))
        for run in todo:
            finish(run, draws, image)
        return 0

    assert batches.until_decided(asked(), act) == 0
    assert began[0] == {cell: [0, 1, 2] for cell in "1248"}
    for batch, runs in zip(began[1:-1], sorted(sequential.SHARES)[1:], strict=False):
        assert max(max(each) for each in batch.values()) == runs - 1
    assert began[-1] == {}  # nothing can be decided by more
    last = capsys.readouterr().out.strip().split("pair  ")[-1]
    assert "confirmed" in last
    assert " 0 go on" in last


def test_the_same_command_asks_for_what_is_left_of_the_batch(asked):
    draws, image = np.random.default_rng(0), np.random.default_rng(1).random(IMAGES)
    first = batches.state_of("inner_heads", asked()).batch()
    assert all(run.config.about.until_decided for run in first)
    for run in first[:5] + first[6:]:
        finish(run, draws, image)
    left = seeds(batches.state_of("inner_heads", asked()).batch(), first[0].config.paths.records)
    assert left == {first[5].config.about.cell: [first[5].config.seed]}


def test_a_row_whose_pairs_are_decided_stops_while_others_go_on(asked):
    """Row 1 is 1.3 behind all others after three runs; of the others 2 and 8 are 0.2 apart."""
    draws, image = np.random.default_rng(0), np.random.default_rng(1).random(IMAGES)
    for run in batches.state_of("inner_heads", asked()).batch():
        finish(run, draws, image)
    state = batches.state_of("inner_heads", asked())
    decided = {pair.cells for pair in state.pairs if not pair.look and not pair.why}
    assert {("2", "1"), ("4", "1"), ("8", "1")} <= decided
    lacking = seeds(state.batch(), next(iter(state.runs)).config.paths.records)
    assert lacking
    assert "1" not in lacking


def test_a_budget_leaves_out_what_is_least_likely_to_be_decided(asked, capsys):
    draws, image = np.random.default_rng(0), np.random.default_rng(1).random(IMAGES)
    for run in batches.state_of("inner_heads", asked()).batch():
        finish(run, draws, image, hours=50.0)
    told = []
    rate = "cost.images_per_second=600"  # a run takes 178 hours

    def act(request, runs):
        told.append((request.max_gpu_hours, seeds(runs, runs[0].config.paths.records)))
        return 1

    batches.until_decided(asked(rate), act)
    batches.until_decided(asked(rate, "max_gpu_hours=1500"), act)
    batches.until_decided(asked(rate, "max_gpu_hours=500"), act)
    whole, part, none = told
    assert (whole[0], part[0]) == (None, pytest.approx(1500 - 12 * 50))
    assert none == (0, {})
    assert 0 < sum(map(len, part[1].values())) < sum(map(len, whole[1].values()))
    assert "left: max_gpu_hours is too low" in capsys.readouterr().out


def test_a_report_of_such_records_knows_that_they_were_looked_at(asked, tmp_path):
    """One record in a table is enough; without it the same figures are judged as planned beforehand."""
    from ablations.reporting.collect import collect

    def chances(name, **more):
        shelf = Shelf(tmp_path / name)
        for cell, level in {"1": 81.0, "2": 81.3, "4": 81.3, "8": 81.1}.items():
            for seed, off in enumerate((-0.1, 0.0, 0.1)):
                shelf.add("inner_heads", cell, level + off, seed, **more)
        (table,) = [each for each in collect([shelf.folder]).tables if each.name == "table6"]
        return [effect.chance for effect in table.effects], [effect.p for effect in table.effects]

    planned, ps = chances("planned")
    looked, higher = chances("looked", until_decided=True)
    assert set(planned) == {None}
    assert None not in looked
    assert all(one > other for one, other in zip(higher, ps, strict=True) if other < 0.1)


def test_the_plan_shows_what_is_next_and_why(tmp_path, capsys):
    paths = [f"paths.{name}={tmp_path / name}" for name in ("runs", "records", "data")]
    assert main(["ablation=inner_heads", "until=decided", "scale=demo", "action=plan", *paths]) == 0
    said = capsys.readouterr().out
    assert said.count("to 3 runs") == len(list(spec.load("inner_heads")["inner_heads"].pairs_of(["top1"])))
    assert "12 missing" in said
    assert list(tmp_path.iterdir()) == []  # a plan writes nothing


@pytest.mark.parametrize("words", [["seeds=0,1"], ["fresh=true"], ["seeds=auto"]])
def test_seeds_are_not_named_twice(words):
    with pytest.raises(ValueError, match="until=decided adds seeds"):
        parse(["ablation=se", "until=decided", *words])
