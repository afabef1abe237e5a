"""A PyramidTNT in training: BatchNorm's statistics are a part of what is averaged, stored and measured."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file

import tnt
from pipeline import evaluate
from pipeline.config.overrides import compose
from pipeline.runs import answers
from tests.pipeline.packed import pack_digits
from tests.pipeline.ranks import DEADLINE
from tests.pipeline.small_runs import Left, Place

PYRAMID = ("model=pyramid_tnt_ti", "data.image_size=64", "recipe.epochs=1", "recipe.warmup_epochs=0.5")


class PyramidPlace(Place):
    def __init__(self, folder, digits) -> None:
        super().__init__(folder, digits)
        names = tuple(f"{text.partition('=')[0]}=" for text in PYRAMID)
        rest = (text for text in self.settings if not text.startswith(names))
        self.settings = (*PYRAMID, *rest)


@pytest.mark.nightly
def test_two_ranks_that_were_killed_end_to_the_bit_and_measure_what_they_leave(tmp_path):
    shards = pack_digits(tmp_path / "digits")
    undisturbed, killed = (PyramidPlace(tmp_path / name, shards) for name in ("undisturbed", "killed"))
    processes = killed.start(world=2)
    killed.reaches(5, processes)
    for process in processes:
        process.kill()
        process.communicate(timeout=DEADLINE)
    runs = undisturbed.train(world=2), killed.train(world=2)
    assert Left.by(runs[0]) == Left.by(runs[1])
    assert "goes on after step" in killed.log()
    state = load_file(runs[1] / "model.safetensors")
    batches = 14 * killed.record["layout"]["accumulation"]
    assert state["stem.shared.1.num_batches_tracked"] == batches
    assert state["stem.shared.1.running_mean"].any()

    record = killed.record
    assert record["science"]["model"]["form"] == "pyramid"
    network = tnt.create_model("pyramid_tnt_ti", **record["science"]["model"])
    assert record["params"] == sum(parameter.numel() for parameter in network.parameters())
    # What two ranks recorded of each image is what one process says of the weights that they left.
    records = killed.folder / "records"
    here = [f"paths.runs={killed.folder / 'runs'}", f"paths.records={records}", f"data.root={shards}"]
    evaluate.main([f"run={runs[1].name}", *here])
    [measured] = (killed.folder / "evaluations").glob("*.json")
    assert json.loads(measured.read_text())["right"] == record["right"]
    kept = answers.read(answers.path_of(records, runs[1].name))["ema"]
    alone = answers.read(answers.path_of(records, measured.stem))["weights"]
    here, there = (each["label_probability"].astype(float) for each in (kept, alone))
    np.testing.assert_allclose(here, there, atol=1e-3)


def test_the_size_of_images_comes_with_the_network_and_gives_way_to_what_is_said():
    assert compose(["model=pyramid_tnt_ti"]).data.image_size == 192
    assert compose(["model=pyramid_tnt_b", "recipe=pyramid"]).data.augmentation.image_size == 256
    assert compose(["model=tnt_ti"]).data.image_size == 224
    assert compose(["model=pyramid_tnt_ti", "recipe=finetune_384"]).model.network.image_size == 384
    assert compose(["model=pyramid_tnt_s", "data.image_size=128"]).model.network.image_size == 128


def test_its_recipe_is_tnts_with_more_warm_up():
    ours, theirs = compose(["model=pyramid_tnt_s", "recipe=pyramid"]), compose(["model=tnt_s"])
    assert ours.recipe.warmup_epochs == 20
    assert (
        compose(["model=pyramid_tnt_s", "recipe=pyramid", "recipe.warmup_epochs=5"]).recipe == theirs.recipe
    )
