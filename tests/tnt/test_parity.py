"""Logits and gradients beside timm's, with the same random weights, in fp32."""

import pytest
import timm
import torch
from torch.nn.functional import cross_entropy

import tnt
from tnt.weights.formats import TIMM

pytestmark = pytest.mark.xdist_group("parity")  # networks are built once

PEERS = {
    "tnt_s": "tnt_s_patch16_224",
    "tnt_b": "tnt_b_patch16_224",
    "tnt_s_legacy": "tnt_s_legacy_patch16_224",
}
TOLERANCE = 1e-5  # of the largest logit, and of each gradient's largest entry


# TNT-B is TNT-S with other widths.
@pytest.fixture(
    scope="module", params=["tnt_s", "tnt_s_legacy", pytest.param("tnt_b", marks=pytest.mark.nightly)]
)
def pair(request, tmp_path_factory):
    """Ours with the weights of timm's, moved away from their zeros and ones, and the file between them."""
    torch.manual_seed(0)
    theirs = timm.create_model(PEERS[request.param]).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    file = tmp_path_factory.mktemp("weights") / "timm.pth.tar"
    torch.save({"state_dict": theirs.state_dict()}, file)
    return request.param, tnt.create_model(request.param, weights=file).eval(), theirs, file


def assert_equal_within(ours: torch.Tensor, theirs: torch.Tensor, what: str = "logits") -> None:
    gap = (ours - theirs).abs().max().item() / theirs.abs().max().item()
    assert gap <= TOLERANCE, f"{what} differ by {gap:.1e} of their largest"


@pytest.mark.slow
def test_logits_equal_timms_at_224(pair):
    _, ours, theirs, _ = pair
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert_equal_within(ours(images), theirs(images))


@pytest.mark.slow
def test_logits_equal_timms_at_384_after_resizing_positions(pair):
    name, _, _, file = pair
    larger = timm.create_model(
        PEERS[name], img_size=384, pretrained=True, pretrained_cfg_overlay={"file": str(file)}
    )
    images = torch.randn(1, 3, 384, 384)
    with torch.no_grad():
        expected = larger.eval()(images)
        assert_equal_within(tnt.create_model(name, weights=file, image_size=384).eval()(images), expected)


def test_a_model_resizes_its_own_positions_as_a_resized_file_would(pair):
    name, ours, _, file = pair
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        resized = tnt.create_model(name, weights=file, image_size=256).eval()
        assert_equal_within(ours(images), resized(images))


@pytest.mark.slow
def test_gradients_equal_timms(pair):
    _, ours, theirs, _ = pair
    images, labels = torch.randn(2, 3, 224, 224), torch.tensor([3, 14])
    for model in (ours, theirs):
        model.zero_grad()
        cross_entropy(model(images), labels).backward()
    gradients = TIMM.from_ours({name: parameter.grad for name, parameter in ours.named_parameters()})
    assert gradients.keys() == dict(theirs.named_parameters()).keys()
    for name, parameter in theirs.named_parameters():
        assert_equal_within(gradients[name], parameter.grad, name)


@pytest.mark.slow
@pytest.mark.parametrize("position", ["patch_position", "word_position"])
def test_a_position_that_is_off_equals_timms_with_zeros(pair, position, tmp_path):
    """timm has no switch; zeros in its place are the same network."""
    name, _, theirs, _ = pair
    foreign = {"patch_position": "patch_pos", "word_position": "pixel_pos"}[position]
    zeroed = timm.create_model(PEERS[name]).eval()
    zeroed.load_state_dict(
        {
            key: torch.zeros_like(value) if key == foreign else value
            for key, value in theirs.state_dict().items()
        }
    )
    torch.save(zeroed.state_dict(), tmp_path / "off.pth")
    ours = tnt.create_model(name, weights=tmp_path / "off.pth", **{position: False}).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert_equal_within(ours(images), zeroed(images))
