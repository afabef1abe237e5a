"""action=calibrate trains for a moment, and what it measured is what plans count by."""

import json

import pytest

from pipeline import launch
from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.launching import calibration
from pipeline.launching.plan import PlannedRun
from tests.pipeline.packed import pack_digits

KINDS = ("ablation=inner_heads", "cells=2,4", "scale=demo", "cluster=local", "model.depth=1")


@pytest.fixture
def place(tmp_path):
    root = pack_digits(tmp_path / "digits")
    folders = (f"paths.{name}={tmp_path / name}" for name in ("runs", "records"))
    return (*KINDS, f"data.root={root}", "data.image_size=32", *folders)


def costs(capsys, *argv):
    launch.main([*argv, "action=plan", "json=true"])
    return [run["cost"] for run in json.loads(capsys.readouterr().out)["runs"]]


@pytest.mark.slow
def test_a_calibration_trains_and_is_what_the_plan_counts_by(place, tmp_path, capsys, warm_local_runs):
    before = costs(capsys, *place)
    assert not any(one["known"] for one in before)
    with pytest.raises(UserError, match="action=calibrate measures it"):
        launch.main([*place, "max_gpu_hours=1000"])
    assert launch.main([*place, "action=calibrate", "cost.seconds=0.5"]) == 0
    said = capsys.readouterr().out.splitlines()
    after = costs(capsys, *place)
    notes = [json.loads(path.read_text()) for path in tmp_path.glob("runs/.calibrations/*/rate-*.json")]
    assert len(said) == len(notes) == len(after) == 2
    for one in after:
        assert one["known"]
        rate = one["images"] / one["device_hours"] / 3600
        assert any(rate == pytest.approx(note["images_per_second"]) for note in notes)
        assert "a calibration of " in one["basis"]
    assert launch.main([*place, "max_gpu_hours=1000", "action=plan"]) == 0
    with pytest.raises(UserError, match="above max_gpu_hours"):
        launch.main([*place, "max_gpu_hours=1e-6"])
    # Nothing else is left: no run has begun, and none has ended.
    assert not list((tmp_path / "records").glob("*"))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [calibration.FOLDER]
    assert not list(tmp_path.glob("runs/.calibrations/*/checkpoints"))


def test_runs_that_train_at_the_same_rate_are_measured_once():
    words = ("seed=1", "recipe.lr=3e-4", "engine.micro_batch=64", "model.inner_heads=2")
    runs = [PlannedRun(compose(["scale=demo", *more]), "a" * 12) for more in ((), *((w,) for w in words))]
    assert len(calibration.copies(runs, 60)) == 3


def test_a_damaged_note_is_named(tmp_path):
    paths = compose([f"paths.runs={tmp_path}"]).paths
    assert calibration.measurements(paths) == []
    note = tmp_path / ".calibrations" / "0123456789ab" / "rate-A100.json"
    note.parent.mkdir(parents=True)
    note.write_text("{}")
    with pytest.raises(UserError, match=r"is damaged .* remove it"):
        calibration.measurements(paths)
