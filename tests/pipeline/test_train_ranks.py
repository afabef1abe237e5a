"""More ranks see the same batches, and end where one process ends."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipeline import evaluate
from pipeline.runs import answers
from tests.pipeline.packed import pack_digits
from tests.pipeline.small_runs import Place

SHORT = (
    "model.depth=1",
    "model.patch_dim=64",
    "model.outer_heads=2",
    "engine.zero_stage=1",
    "recipe.epochs=1",
    "recipe.warmup_epochs=0.5",
)


@pytest.mark.slow
def test_four_ranks_train_as_one_process_would(tmp_path):
    """Their gradients are summed in another order: float32's rounding is all that differs."""
    shards = pack_digits(tmp_path / "digits")
    places = {world: Place(tmp_path / str(world), shards) for world in (4, 1)}
    four, one = (place.train(*SHORT, world=world) for world, place in places.items())
    losses = [[row["loss"] for row in _steps(run)] for run in (four, one)]
    assert len(losses[0]) == 14
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    ours, theirs = (load_file(run / "model.safetensors") for run in (four, one))
    for name, weights in theirs.items():
        np.testing.assert_allclose(ours[name], weights, rtol=0, atol=1e-6, err_msg=name)
        assert not name.endswith("bias") or np.abs(weights).max() > 1e-3, (
            f"{name} began at 0 and learned nothing"
        )
    _same_answers_when_measured_alone(places[4])


def _same_answers_when_measured_alone(place: Place) -> None:
    """What four ranks recorded of each image is what one process says of the weights that they left."""
    records = place.folder / "records"
    here = [f"paths.runs={place.folder / 'runs'}", f"paths.records={records}"]
    evaluate.main([f"run={place.directory.name}", *here, f"data.root={place.settings[-1].split('=')[1]}"])
    [measured] = (place.folder / "evaluations").glob("*.json")
    assert json.loads(measured.read_text())["right"] == place.record["right"]
    kept = answers.read(answers.path_of(records, place.directory.name))
    alone = answers.read(answers.path_of(records, measured.stem))["weights"]
    assert np.array_equal(kept["ema"]["classes"][:, 0], alone["classes"][:, 0])


def _steps(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "lr" in row]
