"""The control from end to end: launched, trained, recorded; only the network that is told where can know."""

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
QUICKER = ("model.depth=1", "recipe.epochs=40")


@pytest.mark.slow
def test_a_switch_named_in_an_ablation_reaches_the_trained_network(tmp_path):
    paths = [f"paths.{name}={tmp_path / name}" for name in ("runs", "records", "data")]
    command = [sys.executable, ROOT / "pipeline/launch.py", "ablation=control", "cluster=local", *paths]
    done = subprocess.run(
        [*command, "logging.tensorboard=false", *QUICKER],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("as expected") - done.stdout.count("not as expected") == 2
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
