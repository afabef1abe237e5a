"""What is no longer needed is removed, and nothing else."""

import io
from dataclasses import replace

import pytest

from pipeline import launch
from pipeline.config import run as configs
from pipeline.config.machine import EngineConfig
from pipeline.config.run import RunConfig
from pipeline.errors import UserError
from pipeline.files import sha256
from pipeline.launching import cleaning
from pipeline.launching.slurm.launches import Launch
from pipeline.runs import audits, records
from pipeline.runs.attempts import lease
from tests.pipeline.runs.test_records import record

DONE, OPEN = record().id, "b" * 12


@pytest.fixture
def runs(tmp_path):
    runs = tmp_path / "runs"
    for id in (DONE, OPEN):
        (runs / id / "checkpoints/step-4").mkdir(parents=True)
        (runs / id / "checkpoints/step-4/data").write_bytes(b"x" * 1000)
    (runs / DONE / "model.safetensors").touch()
    records.publish(record(), tmp_path / "records")
    for name in ("old", "used", "waits", "alone"):
        (runs / ".code" / name).mkdir(parents=True)
    for name in ("over", "held"):
        (runs / ".rehearsals" / name / "interrupted" / DONE).mkdir(parents=True)
    return runs


def audit(record_path):
    about = {
        "after": 2,
        "up_to": 4,
        "compared": 2,
        "same_layout": True,
        "loss_gap": 0.0,
        "grad_norm_gap": 0.0,
    }
    who = {"by": "x", "host": "h", "time": "2026-01-31T10:00:00Z", "commit": "c" * 40, "dirty": False}
    return audits.Audit(record_sha256=sha256(record_path), fault="", **about, **who)


def left(runs, live=()):
    found = cleaning.leftovers(runs, str(runs.parent / "records"), live)
    return {str(one.path.relative_to(runs)) for one in found}


def test_what_is_no_longer_needed_is_all_that_goes(runs):
    over = Launch.begin(runs, [DONE], code="old")
    waits = Launch.begin(runs, [DONE], code="waits")  # its job is in the queue
    used = Launch.begin(runs, [DONE, OPEN], code="used")
    with lease(runs / ".rehearsals/held/interrupted" / DONE):
        found = cleaning.leftovers(runs, str(runs.parent / "records"), {waits.directory.name})
        assert {str(one.path.relative_to(runs)) for one in found} == {
            f".launches/{over.directory.name}",
            ".code/old",
            ".code/alone",
            ".rehearsals/over",
            f"{DONE}/checkpoints",
        }
        assert sum(one.size for one in found if one.path.name == "checkpoints") == 1000
        cleaning.remove(found)
        assert left(runs, {waits.directory.name}) == set()
    assert used.directory.exists()
    assert (runs / OPEN / "checkpoints/step-4/data").exists()
    assert (runs / DONE / "model.safetensors").exists()


def test_code_stays_where_an_older_launch_does_not_say_which_copy_it_runs(runs):
    Launch.begin(runs, [OPEN])
    assert not any(path.startswith(".code") for path in left(runs))


def test_a_run_that_is_at_work_again_keeps_its_checkpoints(runs):
    with lease(runs / DONE):
        assert f"{DONE}/checkpoints" not in left(runs)
    assert f"{DONE}/checkpoints" in left(runs)


def test_checkpoints_kept_for_an_audit_stay_until_one_agrees(runs):
    asked = RunConfig(engine=EngineConfig(keep_for_audit=2))
    configs.write(asked, runs / DONE / "config.yaml")
    folder = runs.parent / "records"
    assert f"{DONE}/checkpoints" not in left(runs)
    assert cleaning.awaiting_audit(runs, str(folder)) == [DONE]
    done = audit(records.record_path(folder, DONE))
    for one, stay in ((replace(done, fault="another loss"), True), (done, True), (done, False)):
        path = audits.path_of(folder, DONE)
        if not stay:
            path.unlink()
        audits.add(path, one)
        assert (f"{DONE}/checkpoints" not in left(runs)) is stay
    audits.publish(path, [replace(done, record_sha256="0" * 64)])  # of a record that was replaced
    assert f"{DONE}/checkpoints" not in left(runs)


def test_nothing_is_removed_unasked(runs, capsys, monkeypatch):
    words = ("scale=demo", "cluster=local", "action=clean", f"paths.runs={runs}")
    words += (f"paths.records={runs.parent / 'records'}", f"paths.data={runs.parent / 'data'}")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(UserError, match="yes=true"):
        launch.main(words)
    assert "checkpoints of finished runs" in capsys.readouterr().out
    assert (runs / DONE / "checkpoints").exists()
    assert launch.main([*words, "yes=true"]) == 0
    assert not (runs / DONE / "checkpoints").exists()
    capsys.readouterr()
    assert launch.main([*words, "yes=true"]) == 0
    assert "nothing is left over" in capsys.readouterr().out
