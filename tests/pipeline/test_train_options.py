"""Real short runs of what a run may be asked for beside the default."""

import gzip
import json
import shutil
from itertools import count

import pytest

from pipeline import evaluate
from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.digits import digits
from tests.pipeline.ranks import DEADLINE
from tests.pipeline.small_runs import Place

EPOCH = ("recipe.epochs=1", "recipe.warmup_epochs=0")


@pytest.fixture
def places(tmp_path):
    make(digits(), tmp_path / "digits", Packing(workers=1))
    return (Place(tmp_path / str(number), tmp_path / "digits") for number in count())


@pytest.mark.slow
def test_a_network_of_timms_trains_under_the_same_recipe_and_leaves_the_same_record(places):
    """In bf16; at its end it is measured in fp32 too, as evaluate.py measures what it left."""
    place = next(places)
    place.train(*EPOCH, "model=timm:test_vit", "precision=bf16", "engine.profile=3-4")
    record = place.record
    assert record["science"]["model"]["name"] == "timm:test_vit"
    assert (place.directory / "model.safetensors").exists()
    assert place.steps()[-1] == 14
    assert "aten::linear" in (place.directory / "profile.txt").read_text()
    trace = json.loads(gzip.decompress((place.directory / "profile.json.gz").read_bytes()))["traceEvents"]
    assert sum(event["name"] == "Optimizer.step#AdamW.step" for event in trace) == 2
    # Another process may add up otherwise; with AMX it rounds a few of bf16's products otherwise too.
    for precision, expected, within in (("bf16", record["ema"], 1e-5), ("fp32", record["ema_fp32"], 1e-12)):
        folders = [setting for setting in place.settings if setting.startswith("paths.")]
        evaluate.main([f"run={place.directory.name}", f"precision={precision}", *folders])
        [path] = place.folder.glob("evaluations/*.json")
        found = {name: value for name, value in json.loads(path.read_text()).items() if name in expected}
        assert found == pytest.approx(expected, rel=within)
        path.unlink()
    assert record["raw"]["loss"] != record["raw_fp32"]["loss"]
    rows = [json.loads(line) for line in (place.directory / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["ema_fp32_top1"] == record["ema_fp32"]["top1"]


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_a_compiled_network_trains_as_the_plain_one_does(places):
    """Forward, backward and in training, through the engine, by inductor's own code."""
    losses = []
    for compiled in ("true", "false"):
        place = next(places)
        place.train(*EPOCH, "model.depth=1", "precision=fp32", f"engine.compile={compiled}")
        rows = [json.loads(line) for line in (place.directory / "metrics.jsonl").read_text().splitlines()]
        losses.append([row["loss"] for row in rows if "lr" in row])
    assert len(losses[0]) == 14
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_what_followers_changed_of_the_recipe_trains(places):
    """All at once, with a teacher, from a run's id: half of the targets are its answers."""
    switches = ("recipe.loss=bce", "recipe.optimizer=lamb", "recipe.layer_decay=0.8")
    place = next(places)
    teacher = place.train(*EPOCH, "recipe.drop_path_rates=uniform")
    student = Place(place.folder / "student", place.folder.parent / "digits")
    runs = f"paths.runs={place.folder / 'runs'}"
    for each in student.start(*EPOCH, "engine.checkpoint_minutes=0", *switches, runs,
                              f"recipe.teacher={teacher.name}"):  # fmt: skip
        _, err = each.communicate(timeout=DEADLINE)
        assert each.returncode == 0, err
    recipe = student.record["science"]["recipe"]
    assert (recipe["teacher"], recipe["optimizer"]) == (teacher.name, "lamb")
    assert student.record["science"]["recipe"]["drop_path_rates"] == "linear"
    assert student.record["raw"]["top1"] > 0
