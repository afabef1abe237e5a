"""PyramidTNT: the authors' network, and what it shares with TNT."""

import hashlib

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import tnt
from tests.tnt.pyramid import oracle
from tnt.complexity.formulas import model_macs
from tnt.complexity.pyramid import pyramid_params
from tnt.complexity.sizes import params_of
from tnt.config import PYRAMIDS, get_config
from tnt.features import Backbone, extract, feature_shapes
from tnt.pyramid.embed import resize_relative_positions
from tnt.weights.networks import network
from tnt.weights.pyramid import OFFICIAL

IMAGES = torch.linspace(-1, 1, 2 * 3 * 128 * 128).reshape(2, 3, 128, 128).sin()
# Of the authors' pyramid_tnt.py: the SHA-256 of its tensors' sorted lines "name shape", its parameters in
# millions, counted, and its multiply-adds in billions, by their README.
AUTHORS = {
    "pyramid_tnt_ti": ("3c60e8c8f12a3e2173a2e331671ec594214d14fe79d00b4ba3d23513f8fc56fd", 10.58, 0.6),
    "pyramid_tnt_s": ("99fc366156f53636d2795668a65ced273288676cc1d8534e5f8122b89b50a797", 31.95, 3.3),
    "pyramid_tnt_m": ("206a28a42adcaea9358799f4374625658e6b922c507884f172912c2cdf737da1", 84.94, 8.2),
    "pyramid_tnt_b": ("f87cf97b24223fd46db7548e87377c870e6c60e39deabfea94e95fe4c6f95082", 156.99, 16.0),
}


def frozen_statistics(model: nn.Module) -> nn.Module:
    """In training, but BatchNorm as in evaluation: then images of a batch do not reach each other."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def test_logits_are_those_of_the_description_under_the_authors_names(small):
    model = small()
    state = OFFICIAL.from_ours(model.state_dict())
    with torch.no_grad():
        expected, found = oracle.logits(state, IMAGES, outer_heads=5, inner_heads=1), model(IMAGES)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert expected.std(dim=0).max() > 0.1  # the images differ in them


@pytest.mark.parametrize("name", PYRAMIDS)
def test_the_tensors_are_those_of_the_authors_code(name):
    with torch.device("meta"):
        state = network(get_config(name)).state_dict()
    lines = sorted(f"{name} {tuple(tensor.shape)}" for name, tensor in OFFICIAL.from_ours(state).items())
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == AUTHORS[name][0]


@pytest.mark.parametrize("name", PYRAMIDS)
def test_sizes_are_those_of_the_authors_code(name):
    """That formula and count of multiply-adds are equal is among the tests of tnt.complexity."""
    config, (_, params, macs) = get_config(name), AUTHORS[name]
    assert pyramid_params(config) == params_of(config)
    assert pyramid_params(config) / 1e6 == pytest.approx(params, rel=0.005)
    assert round(model_macs(config) / 1e9, 1) == macs


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("pyramid_tnt_ti", 0.5864),
        ("pyramid_tnt_s", 3.283),
        ("pyramid_tnt_m", 8.205),
        ("pyramid_tnt_b", 15.967),
    ],
)
def test_multiply_adds_by_formula(name, macs):
    assert model_macs(get_config(name)) / 1e9 == pytest.approx(macs, rel=0.005)


def test_features_have_the_shapes_that_the_code_states(small):
    model = small()
    taken = model.forward_intermediates(IMAGES)
    assert [tuple(each.patches.shape) for each in taken.values()] == [
        (2, 256, 10), (2, 256, 10), (2, 64, 20), (2, 16, 40), (2, 4, 40),
    ]  # fmt: skip
    assert [tuple(each.words.shape) for each in taken.values()] == [
        (2, 256, 16, 3), (2, 256, 16, 3), (2, 64, 16, 6), (2, 16, 16, 12), (2, 4, 16, 12),
    ]  # fmt: skip
    torch.testing.assert_close(model.norm(taken[4].patches), model.forward_features(IMAGES))
    model.head = small(classes=0).head
    torch.testing.assert_close(model(IMAGES), model.forward_features(IMAGES).mean(dim=1))
    with pytest.raises(ValueError, match=r"must lie in 0 \(stem\) to 4"):
        model.forward_intermediates(IMAGES, [5])


def test_extracted_features_have_the_shapes_that_are_promised(small):
    model, asked = small(), ([0, 2, "final"], ["class", "patches", "words"])
    found = extract(model, IMAGES, *asked)
    assert {name: tuple(each.shape[1:]) for name, each in found.items()} == feature_shapes(
        model.config, *asked
    )
    torch.testing.assert_close(model.head(found["final.class"]), model(IMAGES))


@pytest.mark.parametrize("size", [(128, 128), (64, 192)])
def test_a_backbone_gives_maps_at_strides_4_to_32(small, size):
    backbone = Backbone(small(classes=0))
    maps = backbone(torch.randn(2, 3, *size))
    assert (backbone.strides, backbone.channels) == ([4, 8, 16, 32], [6, 10, 20, 40])
    assert [tuple(each.shape) for each in maps] == [
        (2, width, size[0] // stride, size[1] // stride)
        for width, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    chosen = Backbone(small(classes=0), patches=[4], words=[1, 3])
    assert (chosen.strides, chosen.channels) == ([2, 8, 64], [3, 12, 40])


def test_a_map_moves_with_what_it_shows(small):
    """A spot of the image changes most the cell of each map at its place."""
    backbone, images = Backbone(small(classes=0)), torch.zeros(1, 3, 128, 128)
    spot = images.clone()
    spot[:, :, 33:63, 97:127] = 3.0
    with torch.no_grad():
        for before, after, stride in zip(backbone(images), backbone(spot), backbone.strides, strict=True):
            changed = (after - before)[0].norm(dim=0)
            row, column = divmod(int(changed.argmax()), changed.shape[1])
            assert 32 <= row * stride < 64, stride
            assert 96 <= column * stride < 128, stride


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((2, 3, 96, 128), "images of 96×128 pixels are not a whole number of 64×64"),
        ((2, 1, 64, 64), "this model takes B, 3"),
    ],
)
def test_images_that_do_not_fit_are_refused(small, shape, says):
    with pytest.raises(ValueError, match=says):
        small()(torch.randn(shape))


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_paths_that_an_image_drops_do_not_depend_on_the_rest_of_its_batch(small, checkpointed):
    model = frozen_statistics(small(drop_path=0.5))
    model.set_grad_checkpointing(checkpointed)
    keys, images = torch.tensor([5, -7, 2**40, 11]), IMAGES[:1].repeat(4, 1, 1, 1)
    whole = model(images, keys)
    parts = torch.cat([model(images[part], keys[part]) for part in (slice(0, 1), slice(1, 4))])
    torch.testing.assert_close(parts, whole)
    assert len(whole.detach().unique(dim=0)) == 4  # one image, other paths
    assert model(images).ne(model(images)).any()  # without keys, torch's generator goes on
    torch.testing.assert_close(model.eval()(images, keys), model(images))


def test_no_two_residuals_share_a_draw(small):
    model = small(drop_path=0.5).train()
    draws = [drawn for _, _, of_stage in model._plan(IMAGES, torch.tensor([5, 6])) for drawn in of_stage]
    assert [tuple(each.shape) for each in draws] == [
        (2, 2, 1 + n * (number < inner))
        for n, blocks, inner in ((256, 1, 1), (64, 7, 2), (16, 2, 1), (4, 1, 1))
        for number in range(blocks)
    ]
    together = torch.cat([each.flatten() for each in draws])
    assert len(together.unique()) == len(together)


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_activation_checkpointing_changes_no_gradient(small, drop_path):
    model, found = frozen_statistics(small(drop_path=drop_path)), []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        loss = cross_entropy(model(IMAGES, torch.tensor([3, 4])), torch.tensor([1, 4]))
        loss.backward()
        found.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_every_parameter_is_learned(small):
    """But the words' last MLP and norms that nothing reads are none: each block's words reach its patches."""
    model = small()
    model(IMAGES).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.any()] == []


def test_bf16_autocast_is_near_fp32(small):
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        features = model.forward_features(IMAGES)
        loss = cross_entropy(model(IMAGES), torch.tensor([1, 4]))
    loss.backward()
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, model.forward_features(IMAGES), rtol=0.1, atol=0.15)
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_initial_weights_and_what_is_not_decayed_are_the_authors():
    torch.manual_seed(0)
    model = tnt.create_model("pyramid_tnt_ti")
    stage = model.stages[1]
    for tensor in (model.patch_position, model.head.weight, stage.blocks[0].inner.attn.qkv.weight):
        assert tensor.std().item() == pytest.approx(0.02, rel=0.15)
    assert stage.relative_position.std().item() == pytest.approx(1, rel=0.05)
    conv = stage.merge_patches.conv
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 160)) ** 0.5, rel=0.05)
    assert not any(tensor.any() for tensor in (conv.bias, model.head.bias))
    assert model.no_weight_decay() == {"patch_position", "word_position"}
    norms = [each.weight for each in model.modules() if isinstance(each, nn.LayerNorm)]
    assert {weight.ndim for weight in norms} == {1}  # so that they are not decayed either


def test_relative_positions_stay_where_they_are_learned():
    """A bias that is a plane over queries and keys stays that plane on a finer grid, off the edges."""
    learned = torch.arange(8.0).repeat_interleave(8).view(1, 1, 64, 1).expand(1, 2, 64, 4).clone()
    learned[:, 1] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    found = resize_relative_positions(learned, (8, 2), (16, 16), 4)
    assert found.shape == (1, 2, 256, 16)
    rows = found[0, 0].view(16, 16, 16)
    torch.testing.assert_close(rows[4:12, 3, 5], torch.arange(4, 12) / 2 - 0.25, atol=1e-4, rtol=0)
    keys = found[0, 1].view(256, 4, 4)
    assert keys[:, 0].max() < 0.1
    assert keys[:, 3].min() > 0.9
    assert resize_relative_positions(learned, (8, 2), (8, 8), 4) is learned


@pytest.mark.nightly
def test_compiles_without_graph_breaks(small):
    model = frozen_statistics(small(drop_path=0.2))  # in training
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    keys = torch.tensor([1, 2])
    torch.testing.assert_close(compiled(IMAGES, keys), model(IMAGES, keys))


@pytest.mark.slow
def test_exports_with_a_free_batch(small):
    model = small()
    program = torch.export.export(model, (IMAGES,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    images = torch.randn(5, 3, 128, 128)
    torch.testing.assert_close(program.module()(images), model(images), rtol=1e-4, atol=1e-4)
