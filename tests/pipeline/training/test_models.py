"""Networks by name, ours and timm's, and their weights: from files, from runs, to files."""

import json

import pytest
import timm
import torch

import tnt
from pipeline.config.overrides import compose
from pipeline.config.run import RunConfig
from pipeline.config.science import ModelConfig, TimmConfig
from pipeline.errors import UserError
from pipeline.training import models

SMALL = ("model.patch_dim=32", "model.outer_heads=2", "model.inner_heads=2", "model.depth=1")


def config_of(*overrides: str) -> RunConfig:
    return compose([*SMALL, "data.image_size=32", "data.classes=3", "recipe.drop_path=0", *overrides])


def timm_config(*overrides: str) -> RunConfig:
    return compose(["model=timm:test_vit", "data.image_size=32", "data.classes=3", *overrides])


@pytest.mark.parametrize("make", [config_of, timm_config])
def test_every_network_has_the_interface(make):
    model = models.create(make().model)
    model.set_grad_checkpointing(True)
    names = {name for name, _ in model.named_parameters()}
    assert set(model.no_weight_decay()) & names
    out = model(torch.randn(2, 3, 32, 32))
    assert out.shape == (2, 3)
    out.sum().backward()
    assert models.count_parameters(model) == sum(p.numel() for p in model.parameters())


def test_the_same_seed_gives_the_same_weights():
    for make in (config_of, timm_config):
        states = []
        for _ in range(2):
            torch.manual_seed(5)
            states.append(models.create(make().model).state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_drop_path_and_size_reach_timms_network():
    model = models.create(ModelConfig("timm:test_vit", TimmConfig(64, 5, 0.2)))
    assert max(module.drop_prob for module in model.modules() if hasattr(module, "drop_prob")) > 0.19
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 5)
    convolutional = models.create(ModelConfig("timm:test_resnet", TimmConfig(64, 5, 0.1)))
    assert convolutional(torch.randn(1, 3, 64, 64)).shape == (1, 5)


def test_a_name_that_timm_does_not_know_is_refused_with_near_ones():
    with pytest.raises(UserError, match="no model 'deit_smal_patch16_224'; nearest: deit_small_patch16_224"):
        models.create(ModelConfig("timm:deit_smal_patch16_224", TimmConfig()))


def test_what_a_run_leaves_loads_with_tnt_and_can_be_fine_tuned(tmp_path):
    config = config_of(f"paths.runs={tmp_path}")
    model = models.create(config.model)
    directory = tmp_path / "0123456789ab"
    directory.mkdir()
    path = models.export(config, model.state_dict(), directory, {"id": "0123456789ab"})
    described = json.loads((directory / "config.json").read_text())
    again = tnt.create_model(described["architecture"], path, **described["network"])
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), model(images))
    assert described["run"] == {"id": "0123456789ab"}
    assert described["pretrained_cfg"]["mean"] == [0.5, 0.5, 0.5]

    tuned = config_of(f"paths.runs={tmp_path}", "data.image_size=64", "data.classes=5",
                      "recipe.init=0123456789ab")  # fmt: skip
    torch.manual_seed(1)
    fresh = models.create(tuned.model)
    head = fresh.head.weight.detach().clone()
    said = models.initialise(fresh, tuned)
    assert "positions 32 → 64" in said
    assert "a new head" in said
    assert torch.equal(fresh.head.weight, head)
    assert torch.equal(fresh.blocks[0].outer.mlp.fc1.weight, model.blocks[0].outer.mlp.fc1.weight)
    assert fresh.patch_position.shape[1] == 17
    assert models.initialise(fresh, config) == ""


def test_a_head_for_as_many_classes_is_kept(tmp_path):
    config = config_of()
    model = models.create(config.model)
    path = models.export(config, model.state_dict(), tmp_path)
    fresh = models.create(config.model)
    assert "a new head" not in models.load(fresh, path)
    assert torch.equal(fresh.head.weight, model.head.weight)


def test_timms_weights_go_out_and_come_back_at_another_size(tmp_path):
    config = timm_config()
    model = models.create(config.model).eval()
    path = models.export(config, model.state_dict(), tmp_path)
    fresh = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=32).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(fresh(images), model(images))
    larger = models.create(timm_config("data.image_size=64", "data.classes=4").model)
    assert "a new head" in models.load(larger, path)
    assert torch.equal(larger.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("make", [config_of, timm_config])
def test_weights_that_do_not_fit_are_refused(make, tmp_path):
    other = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, other)
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"no weights")
    for path in (other, garbage, tmp_path / "missing.safetensors"):
        with pytest.raises(UserError, match=path.name):
            models.load(models.create(make().model), path)


def test_a_run_without_weights_is_named(tmp_path):
    config = config_of(f"paths.runs={tmp_path}", "recipe.init=0123456789ab")
    with pytest.raises(UserError, match="finish it first"):
        models.initialise(models.create(config.model), config)


def test_weights_with_nan_are_found():
    models.check_finite({"a": torch.ones(2), "n": torch.tensor(1)})
    with pytest.raises(UserError, match="b holds NaN"):
        models.check_finite({"a": torch.ones(2), "b": torch.tensor([1.0, float("nan")])})


def test_where_a_new_head_is_not_wanted_other_classes_are_refused(tmp_path):
    for make in (config_of, timm_config):
        config = make()
        path = models.export(config, models.create(config.model).state_dict(), tmp_path)
        with pytest.raises(UserError, match=path.name):
            models.load(models.create(make("data.classes=4").model), path, new_head=False)


def test_one_rate_for_all_blocks_drops_paths_in_the_first_too():
    config = config_of("recipe.drop_path=0.5", "recipe.drop_path_rates=uniform", "model.depth=2")
    model = models.create(config.model)
    assert [block.outer.drop_path for block in model.blocks] == [0.0, 0.5]
    models.initialise(model, config)
    assert {part.drop_path for block in model.blocks for part in (block.inner, block.outer)} == {0.5}
    with pytest.raises(UserError, match="uniform is for a TNT; timm:test_vit is none"):
        models.initialise(models.create(timm_config().model), timm_config("recipe.drop_path_rates=uniform"))


def test_a_teacher_comes_from_a_file_and_answers_in_evaluation_mode(tmp_path):
    path = models.export(timm_config(), models.create(timm_config().model).state_dict(), tmp_path)
    chosen = (f"recipe.teacher={path}", "recipe.teacher_network=timm:test_vit")
    teacher = models.teacher(config_of(*chosen), torch.device("cpu"))
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    assert models.teacher(config_of(), torch.device("cpu")) is None
    for words, message in {
        chosen[:1]: "say which network that is by recipe.teacher_network=",
        (*chosen, "data.classes=4"): path.name,
        ("recipe.teacher=0123456789ab",): "recipe.teacher=0123456789ab: that run has no model.safetensors",
    }.items():
        with pytest.raises(UserError, match=message):
            models.teacher(config_of(*words), torch.device("cpu"))


def test_a_token_for_distillation_gives_outputs_of_its_own():
    name = "model=timm:deit_tiny_distilled_patch16_224"
    config = compose([name, "data.image_size=32", "data.classes=3", "recipe.teacher=0123456789ab"])
    model = models.create(config.model)
    models.initialise(model, config)
    own, distilled = model.train()(torch.randn(2, 3, 32, 32))
    assert own.shape == distilled.shape == (2, 3)
    assert model.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 3)
