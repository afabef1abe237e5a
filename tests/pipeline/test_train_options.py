"""Real short runs of what a run may be asked for beside the default."""

import shutil

import pytest

from pipeline.pack import make
from pipeline.shard_plan import Packing
from pipeline.sources_digits import digits
from tests.pipeline.runs import Place


@pytest.fixture
def place(tmp_path):
    make(digits(), tmp_path / "digits", Packing(workers=1))
    return Place(tmp_path, tmp_path / "digits")


@pytest.mark.slow
def test_a_network_of_timms_trains_under_the_same_recipe_and_leaves_the_same_record(place):
    place.train("model=timm:test_vit", "data.image_size=160", "recipe.epochs=2", "engine.micro_batch=32")
    record = place.record
    assert record["science"]["model"]["name"] == "timm:test_vit"
    assert (place.directory / "model.safetensors").exists()
    assert place.steps()[-1] == 28


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_a_compiled_network_trains(place):
    place.train("engine.compile=true", "recipe.epochs=2")
    assert place.steps()[-1] == 28
