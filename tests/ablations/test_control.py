"""The controls from end to end: launched, trained, recorded, judged with what is stored.

Only the network that is told where the mark stands can know.
"""

import json
import subprocess
import sys

import pytest

from ablations.spec import load
from pipeline.runs import records
from tests.pipeline.ranks import ROOT, environment
from tnt.weights.tensors import read_tensors

LIMIT = 280  # seconds; a quiet machine with two cores needs forty
# One block and this seed need 14 epochs on one kind of processor and 26 on another.
QUICKER = ("model.depth=1", "recipe.epochs=32", "recipe.evaluate_every=32", "engine.checkpoint_every=32")
# In the report of all tables at demo scale.
CONTROLS = {
    "the switch reaches the network": 24,
    "seeds in two groups: no effect": 1,
    "effect planted in stored answers": 1,
    "the least that is seen, planted": 1,
}


@pytest.mark.slow
def test_a_switch_named_in_an_ablation_reaches_the_trained_network(tmp_path):
    paths = [f"paths.{name}={tmp_path / name}" for name in ("runs", "records", "data")]
    command = [sys.executable, ROOT / "pipeline/launch.py", "ablation=controls", "cluster=local", *paths]
    done = subprocess.run(
        [*command, "logging.tensorboard=false", *QUICKER],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("as expected") - done.stdout.count("not as expected") == 2
    report = [sys.executable, ROOT / "ablations/report.py", "--scale", "demo", "--strict"]
    folders = ["--records", ROOT / "results/shipped", tmp_path / "records", "--results", tmp_path / "results"]
    told = subprocess.run(
        [*report, *folders], env=environment(), capture_output=True, text=True, timeout=LIMIT
    )
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert "not as expected" not in told.stdout
    for control, count in CONTROLS.items():
        assert sum(control in line and "as expected" in line for line in lines) == count, control
    found, problems = records.read_all(tmp_path / "records")
    assert not problems
    by_cell = {record.cell: record for record in found}
    for cell in load("control")["control"].cells:
        record = by_cell[cell.name]
        least, most = cell.within
        assert least <= record.best.top1 <= most, f"{cell.label}: top-1 {record.best.top1}"
        assert (record.ablation, record.scale, record.attempts) == ("control", "demo", 1)
        told = record.science["model"]["patch_position"]
        assert told is (cell.name == "with")
        directory = tmp_path / "runs" / record.id
        assert json.loads((directory / "config.json").read_text())["network"]["patch_position"] is told
        tensors, _ = read_tensors(directory / "model.safetensors", ema=True)
        assert any("patch_pos" in name for name in tensors) is told
