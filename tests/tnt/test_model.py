import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import tnt
from tnt import TNT
from tnt.embed import resize_patch_positions


def loss_and_gradients(model, images):
    model.zero_grad()
    loss = cross_entropy(model(images), torch.tensor([1, 4]))
    loss.backward()
    return loss.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_features_have_the_shapes_that_the_code_states(tiny):
    model = tiny()  # n=9, m=16, c=6, d=10, 7 classes
    images = torch.randn(2, 3, 24, 24)
    assert model(images).shape == (2, 7)
    assert model.forward_features(images).shape == (2, 10, 10)
    words, patches = model._embed(images)
    assert (words.shape, patches.shape) == ((18, 16, 6), (2, 10, 10))
    words, patches = model.blocks[0](words, patches)
    assert (words.shape, patches.shape) == ((18, 16, 6), (2, 10, 10))


def test_without_classes_the_class_tokens_embedding_comes_out(tiny):
    model, images = tiny(classes=0), torch.randn(2, 3, 24, 24)
    torch.testing.assert_close(model(images), model.forward_features(images)[:, 0])


def test_intermediates_are_what_flows_between_the_blocks(tiny):
    model, images = tiny(), torch.randn(2, 3, 24, 24)
    taken = model.forward_intermediates(images, depths=[0, 2, 3])
    assert list(taken) == [0, 2, 3]
    assert taken[2].patches.shape == (2, 10, 10)
    assert taken[2].words.shape == (2, 9, 16, 6)
    words, patches = model.blocks[2](taken[2].words.flatten(0, 1), taken[2].patches)
    torch.testing.assert_close(words, taken[3].words.flatten(0, 1))
    torch.testing.assert_close(patches, taken[3].patches)
    torch.testing.assert_close(model.norm(taken[3].patches), model.forward_features(images))
    assert list(model.forward_intermediates(images)) == [0, 1, 2, 3]


@pytest.mark.parametrize("depths", [[4], [-1], []])
def test_depths_that_do_not_exist_are_refused(tiny, depths):
    with pytest.raises(ValueError, match=r"must lie in 0 \(stem\) to 3"):
        tiny().forward_intermediates(torch.randn(1, 3, 24, 24), depths=depths)


@pytest.mark.parametrize("form", ["official", "legacy"])
@pytest.mark.parametrize("size", [(24, 24), (32, 32), (16, 40)])
def test_any_size_that_the_patch_divides_is_taken(tiny, form, size):
    assert tiny(form=form)(torch.randn(2, 3, *size)).shape == (2, 7)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((2, 3, 25, 24), "images of 25×24 pixels are not a whole number of 8×8 patches"),
        ((2, 4, 24, 24), r"images of shape \(2, 4, 24, 24\); this model takes B, 3, H, W"),
        ((3, 24, 24), r"images of shape \(3, 24, 24\); this model takes B, 3, H, W"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_their_shape(tiny, shape, says):
    with pytest.raises(ValueError, match=says):
        tiny()(torch.randn(shape))


def test_patch_positions_keep_the_class_tokens_and_equal_ones_stay_equal():
    positions = torch.cat([torch.full((1, 1, 5), 7.0), torch.full((1, 9, 5), 3.0)], dim=1)
    resized = resize_patch_positions(positions, (4, 6))
    assert resized.shape == (1, 25, 5)
    assert resized[:, 0].eq(7).all()
    torch.testing.assert_close(resized[:, 1:], torch.full((1, 24, 5), 3.0))
    assert resize_patch_positions(positions, (3, 3)) is positions


def test_initialisation_is_the_official_one():
    torch.manual_seed(0)
    model = tnt.create_model("tnt_s", depth=1)
    for token in (model.class_token, model.patch_position, model.word_position, model.head.weight):
        assert token.std().item() == pytest.approx(0.02, rel=0.15)
    assert model.head.bias.eq(0).all()
    assert model.blocks[0].inner.attn.proj.bias.eq(0).all()
    assert model.norm.weight.eq(1).all()


def test_weight_decay_spares_positions_and_the_class_token():
    model = tnt.create_model("tnt_ti", depth=1)
    assert model.no_weight_decay() == {"class_token", "patch_position", "word_position"}
    assert model.no_weight_decay() <= dict(model.named_parameters()).keys()


def test_a_position_that_is_off_has_no_parameter(tiny):
    names = dict(tiny(patch_position=False).named_parameters()).keys()
    assert "patch_position" not in names
    assert "word_position" in names


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_paths_that_an_image_drops_do_not_depend_on_the_rest_of_its_batch(tiny, checkpointed):
    model = tiny(drop_path=0.5).train()
    model.set_grad_checkpointing(checkpointed)
    keys, images = torch.tensor([5, -7, 2**40, 11]), torch.randn(1, 3, 24, 24).repeat(4, 1, 1, 1)
    whole = model(images, keys)
    parts = torch.cat([model(images[part], keys[part]) for part in (slice(0, 1), slice(1, 4))])
    torch.testing.assert_close(parts, whole)
    assert len(whole.detach().unique(dim=0)) == 4  # one image, other paths
    assert model(images).ne(model(images)).any()  # without keys, torch's generator goes on
    torch.testing.assert_close(model.eval()(images, keys), model(images))


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_activation_checkpointing_changes_no_gradient(tiny, drop_path):
    model, images = tiny(drop_path=drop_path).train(), torch.randn(2, 3, 24, 24)
    torch.manual_seed(1)
    loss, gradients = loss_and_gradients(model, images)
    model.set_grad_checkpointing()
    torch.manual_seed(1)
    again, recomputed = loss_and_gradients(model, images)
    assert loss == again
    for name, gradient in gradients.items():
        assert torch.equal(gradient, recomputed[name]), name


def test_the_same_logits_come_with_and_without_autograd(tiny):
    model, images = tiny(), torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        without = model(images)
    torch.testing.assert_close(without, model(images))


@pytest.mark.parametrize("watch", ["layer", "everything", "wrapper"])
def test_who_watches_a_layer_sees_the_same_with_and_without_autograd(tiny, watch):
    model, images, seen = tiny(), torch.randn(2, 3, 24, 24), []
    mlp = model.blocks[1].outer.mlp

    def keep(layer, inputs, output):
        if layer is mlp.fc1:
            seen.append(output)

    if watch == "wrapper":
        mlp.fc1 = nn.Sequential(mlp.fc1)
        handle = mlp.fc1[0].register_forward_hook(lambda *found: seen.append(found[2]))
    elif watch == "layer":
        handle = mlp.fc1.register_forward_hook(keep)
    else:
        handle = nn.modules.module.register_module_forward_hook(keep)
    try:
        with torch.no_grad():
            model(images)
        model(images)
    finally:
        handle.remove()
    torch.testing.assert_close(seen[0], seen[1].detach())


def test_channels_last_images_give_the_same_logits(tiny):
    images = torch.randn(2, 3, 24, 24)
    for form in ("official", "legacy"):
        model = tiny(form=form)
        torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), model(images))


def test_bf16_autocast_keeps_the_residual_stream_and_the_gradients_in_fp32(tiny):
    model, images = tiny(), torch.randn(2, 3, 24, 24)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.forward_features(images)
        loss = cross_entropy(model(images), torch.tensor([1, 4]))
    loss.backward()
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, model.forward_features(images), rtol=0.1, atol=0.1)
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.parametrize(("form", "training"), [("official", False), ("official", True), ("legacy", True)])
def test_compiles_without_graph_breaks(tiny, form, training):
    model: TNT = tiny(form=form, se="outer", patch_dim=20, drop_path=0.0 if not training else 0.2)
    model.train(training)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    images = torch.randn(2, 3, 24, 24)
    torch.manual_seed(1)
    loss, gradients = loss_and_gradients(model, images)
    torch.manual_seed(1)
    again, compiled_gradients = loss_and_gradients(compiled, images)
    torch.testing.assert_close(again, loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(compiled_gradients[f"_orig_mod.{name}"], gradient)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["official", "legacy"])
def test_exports_with_a_free_batch(tiny, form):
    model = tiny(form=form)
    program = torch.export.export(
        model, (torch.randn(2, 3, 24, 24),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    images = torch.randn(5, 3, 24, 24)
    torch.testing.assert_close(program.module()(images), model(images))
