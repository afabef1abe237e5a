"""Weights of PyramidTNT: written, read, resized, and told from those of other networks."""

import pytest
import torch

import tnt
from tests.tnt.pyramid.test_pyramid_model import IMAGES
from tnt.config import PYRAMIDS, get_config
from tnt.weights import models as weights
from tnt.weights.networks import config_of, network
from tnt.weights.pyramid import OFFICIAL


@pytest.mark.parametrize("format", ["tnt", "official"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_what_is_written_comes_back_bit_for_bit(small, tmp_path, format, suffix):
    model, other = small(), small()
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            tensor.zero_()
    weights.save(model, tmp_path / f"w{suffix}", format)
    assert weights.load(other, tmp_path / f"w{suffix}").format == format
    assert torch.equal(other(IMAGES), model(IMAGES))
    read = weights.read(tmp_path / f"w{suffix}")
    assert read.config == model.config
    assert read.heads_known == (suffix == ".safetensors")  # which hold the config


@pytest.mark.parametrize("name", PYRAMIDS)
def test_a_published_variant_is_known_by_its_tensors(name):
    with torch.device("meta"):
        state = network(get_config(name)).state_dict()
    assert config_of(OFFICIAL.to_ours(OFFICIAL.from_ours(state)), None) == (get_config(name), True)


def test_weights_are_resized_as_the_network_resizes_its_own(small, tmp_path):
    model = small()
    weights.save(model, tmp_path / "w.safetensors", "official")
    images = torch.randn(1, 3, 192, 192)
    larger, _ = weights.open_model(tmp_path / "w.safetensors", image_size=192)
    torch.testing.assert_close(larger.eval()(images), model(images))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"depths": (1, 7, 2, 2)}, r"depths=\(1, 7, 2, 1\), not \(1, 7, 2, 2\)"),
        ({"outer_heads": 2}, "outer_heads=5, not 2"),
        ({"inner_heads": 3}, "inner_heads=1, not 3"),
        ({"classes": 4}, "a head for 7 classes, the model for 4"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(small, tmp_path, changes, says):
    weights.save(small(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=says):
        weights.load(small(**changes), tmp_path / "w.safetensors")


def test_the_two_families_are_not_taken_for_each_other(small, tmp_path):
    weights.save(small(), tmp_path / "w.safetensors")
    ours = tnt.create_model("tnt_ti", depth=1)
    with pytest.raises(
        ValueError, match=r"holds pyramid_tnt_.*the model is tnt_ti.*form=pyramid, not official"
    ):
        weights.load(ours, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="timm has no PyramidTNT; write tnt or official"):
        weights.save(small(), tmp_path / "other.safetensors", "timm")
    weights.save(ours, tmp_path / "tnt.safetensors")
    with pytest.raises(ValueError, match=r"holds tnt_ti .*form=official, not pyramid"):
        weights.load(small(), tmp_path / "tnt.safetensors")
