"""Records that were committed with schema 1 are still read, and every run is the one that it was."""

import json
from pathlib import Path

import pytest

from ablations import spec
from pipeline.config.identity import run_id, science
from pipeline.config.overrides import compose
from pipeline.runs import records
from pipeline.runs.records import main, migrate

# All that were ever committed with schema 1, and those of schema 2 that lack what came later; a line each.
OLD, EARLIER = (
    [json.loads(line) for line in Path(__file__).with_name(f"schema{number}.jsonl").read_text().splitlines()]
    for number in (1, 2)
)


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "records"
    folder.mkdir()
    for values in OLD:
        (folder / f"{values['id']}.json").write_text(json.dumps(values))
    return folder


def test_a_record_that_lacks_what_came_later_is_read_under_its_id(tmp_path):
    for values in EARLIER:
        assert "mix_first" not in values["science"]["data"]["augmentation"]
        (tmp_path / f"{values['id']}.json").write_text(json.dumps(values))
    found, problems = records.read_all(tmp_path)
    assert not problems
    assert {record.id for record in found} == {values["id"] for values in EARLIER}
    assert not any(record.science["data"]["augmentation"]["mix_first"] for record in found)


def test_every_record_ever_committed_is_read(folder):
    ids = migrate(folder)
    found, problems = records.read_all(folder)
    assert not problems
    assert {record.id for record in found} == set(ids.values())
    by_id = {record.id: record for record in found}
    for old in OLD:
        new = by_id[ids[old["id"]]]
        assert (new.best.top1, new.weights_sha256) == (old[old["exported"]]["top1"], old["weights_sha256"])
        assert old["id"] in new.events[-1]
        start = old["science"]["recipe"]["init"]
        assert new.science["recipe"]["init"] == ids.get(start, "")


def test_a_record_whose_numbers_stand_is_that_of_the_same_config_today(folder):
    """Nothing was mixed in the control, and no revision concerns it."""
    record = records.read(records.record_path(folder, migrate(folder)["51b950cc412f"]))
    [today] = spec.requested_runs("control", cells=("with",))
    assert record.id == run_id(today.config, record.fingerprint)


def test_a_record_of_an_earlier_revision_is_another_run_and_says_so(folder):
    record = records.read(records.record_path(folder, migrate(folder)["345faf291489"]))
    today = compose(["scale=demo", "model.inner_heads=1"])
    assert record.id != run_id(today, record.fingerprint)
    assert record.science | {"revisions": science(today)["revisions"]} == science(today)
    assert science(today)["revisions"]["mixing"] == 2


def test_runs_get_the_new_ids_too(folder, tmp_path, capsys):
    (tmp_path / "runs/345faf291489").mkdir(parents=True)
    assert main(["migrate", str(folder), "--runs", str(tmp_path / "runs")]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("345faf291489"))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [line.split(" -> ")[1]]
    assert migrate(folder) == {}


def test_until_then_the_command_is_said(folder):
    _, problems = records.read_all(folder)
    assert len(problems) == len(OLD)
    assert all("python -m pipeline.runs.records migrate" in problem for problem in problems)


def test_an_edited_one_is_refused_and_none_is_changed(folder):
    path = folder / "345faf291489.json"
    path.write_text(path.read_text().replace('"top1": 97.5', '"top1": 98.5'))
    before = {each.name for each in folder.iterdir()}
    with pytest.raises(records.BadRecord, match="345faf291489"):
        migrate(folder)
    assert {each.name for each in folder.iterdir()} == before
