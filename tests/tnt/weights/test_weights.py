import argparse
import os

import pytest
import timm
import torch

import tnt
from tnt.weights import models as weights
from tnt.weights.formats import FORMATS, MMPRETRAIN, OFFICIAL, TIMM

IMAGE = torch.linspace(-1, 1, 3 * 224 * 224).reshape(1, 3, 224, 224).sin()


def small(name: str = "tnt_s", **changes: object) -> tnt.TNT:
    """A published variant's widths, two blocks deep."""
    torch.manual_seed(0)
    return tnt.create_model(name, **({"depth": 2, "classes": 5} | changes)).eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IMAGE)


def like(model: tnt.TNT) -> tnt.TNT:
    """The same network with other weights."""
    torch.manual_seed(1)
    return tnt.TNT(model.config).eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("format", weights.WRITABLE)
def test_what_is_written_comes_back_bit_for_bit(tmp_path, format, suffix):
    model = small()
    weights.save(model, tmp_path / f"w{suffix}", format)
    read = like(model)
    assert weights.load(read, tmp_path / f"w{suffix}").format == format
    assert torch.equal(logits(read), logits(model))
    assert [file.name for file in tmp_path.iterdir()] == [f"w{suffix}"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tnt_s", "tnt_b", "tnt_s_legacy"])
def test_what_is_written_for_timm_gives_the_same_logits_there(tmp_path, name):
    model = tnt.create_model(name).eval()
    weights.save(model, tmp_path / "w.safetensors", "timm")
    theirs = timm.create_model(f"{name}_patch16_224", checkpoint_path=str(tmp_path / "w.safetensors")).eval()
    expected = logits(theirs)
    assert (logits(model) - expected).abs().max() <= 1e-5 * expected.abs().max()


def official_checkpoint(model: tnt.TNT) -> dict:
    """As the authors' training script stores it: its arguments beside the weights and their average."""
    state = OFFICIAL.from_ours(model.state_dict())
    state["outer_tokens"] = torch.zeros(1, 196, model.config.patch_dim)
    other = {name: tensor + 1 for name, tensor in state.items()}
    return {
        "epoch": 299,
        "arch": "tnt_s_patch16_224",
        "state_dict": {f"module.{name}": tensor for name, tensor in other.items()},
        "state_dict_ema": state,
        "args": argparse.Namespace(lr=1e-3, model="tnt_s_patch16_224"),
        "metric": 81.5,
    }


@pytest.mark.parametrize("se", ["none", "outer"])
def test_the_official_checkpoint_is_read_with_its_frozen_tensor_and_its_average(tmp_path, se):
    model = small(se=se)
    torch.save(official_checkpoint(model), tmp_path / "checkpoint.pth.tar")
    read = like(model)
    weights.load(read, tmp_path / "checkpoint.pth.tar")
    assert torch.equal(logits(read), logits(model))
    raw = weights.read(tmp_path / "checkpoint.pth.tar", ema=False)
    assert torch.equal(raw.state["norm.bias"], model.norm.bias + 1)


def test_the_official_names_are_those_of_the_authors_file():
    names = OFFICIAL.from_ours(small(se="outer").state_dict()).keys()
    assert {
        *("patch_embed.proj.weight", "cls_token", "outer_pos", "inner_pos", "norm.weight", "head.bias"),
        *("proj_norm1.weight", "proj.bias", "proj_norm2.bias"),
        *("blocks.0.inner_norm1.weight", "blocks.0.inner_attn.qk.weight", "blocks.0.inner_attn.v.weight"),
        *("blocks.1.inner_attn.proj.bias", "blocks.1.inner_norm2.bias", "blocks.1.inner_mlp.fc1.weight"),
        *("blocks.1.proj_norm1.weight", "blocks.1.proj.weight", "blocks.1.proj_norm2.bias"),
        *("blocks.1.outer_norm1.bias", "blocks.1.outer_attn.qk.weight", "blocks.1.outer_mlp.fc2.bias"),
        *("blocks.1.se_layer.fc.0.weight", "blocks.1.se_layer.fc.1.bias", "blocks.1.se_layer.fc.3.weight"),
    } <= names
    assert "blocks.1.proj.bias" not in names


def test_mmpretrains_checkpoint_of_the_model_page_is_read(tmp_path):
    model = small("tnt_s_legacy")
    state = MMPRETRAIN.from_ours(model.state_dict())
    assert state["backbone.layers.0.inner_block.attn.attn.in_proj_weight"].shape == (72, 24)
    assert state["backbone.pixel_pos"].shape == (1, 24, 4, 4)
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "tnt-small-p16_3rdparty_in1k.pth")
    read = like(model)
    assert weights.load(read, tmp_path / "tnt-small-p16_3rdparty_in1k.pth").format == "mmpretrain"
    assert torch.equal(logits(read), logits(model))


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_every_tensor_keeps_its_value_through_every_format(format):
    state = small("tnt_s_legacy" if format is MMPRETRAIN else "tnt_s").state_dict()
    back = format.to_ours(format.from_ours(state))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("held", "wanted", "says"),
    [
        ("tnt_b", "tnt_s", r"holds tnt_b .*the model is tnt_s.*patch_dim=640, not 384"),
        ("tnt_s", "tnt_s_legacy", r"holds tnt_s .*the model is tnt_s_legacy.*form=official, not legacy"),
        ("tnt_s_legacy", "tnt_s", r"holds tnt_s_legacy .*the model is tnt_s.*form=legacy, not official"),
        ("tnt_ti", "tnt_s", r"holds tnt_ti .*the model is tnt_s.*patch_dim=192, not 384"),
    ],
)
@pytest.mark.parametrize("format", ["tnt", "timm"])
def test_the_wrong_variant_is_refused_by_name(tmp_path, format, held, wanted, says):
    weights.save(small(held), tmp_path / "w.safetensors", format)
    with pytest.raises(ValueError, match=says):
        weights.load(small(wanted), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("held", "wanted", "says"),
    [
        ({"se": "outer"}, {}, "se=outer, not none"),
        ({"depth": 3}, {}, "depth=3, not 2"),
        ({"word_edge": 8}, {}, "word_dim=96, not 24, word_edge=8, not 4"),
        ({"patch_position": False}, {}, "patch_position=False, not True"),
        ({}, {"word_position": False}, "word_position=True, not False"),
        ({"inner_heads": 2}, {}, "inner_heads=2, not 4"),
        ({}, {"classes": 7}, "a head for 5 classes, the model for 7; new_head=True starts a new one"),
    ],
)
def test_a_switch_that_differs_is_refused_by_name(tmp_path, held, wanted, says):
    weights.save(small(**held), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=says):
        weights.load(small(**wanted), tmp_path / "w.safetensors")


def test_a_new_head_keeps_the_models_own_and_takes_all_else(tmp_path):
    model, other = small(), small(classes=7)
    weights.save(model, tmp_path / "w.safetensors")
    head = other.head.weight.clone()
    weights.load(other, tmp_path / "w.safetensors", new_head=True)
    assert torch.equal(other.head.weight, head)
    assert torch.equal(other.forward_features(IMAGE), model.forward_features(IMAGE))


def test_an_off_position_goes_through_timm_as_zeros(tmp_path):
    model = small(patch_position=False)
    weights.save(model, tmp_path / "w.safetensors", "timm")
    read = like(model)
    weights.load(read, tmp_path / "w.safetensors")
    assert torch.equal(logits(read), logits(model))


def test_the_config_travels_in_our_own_format(tmp_path):
    model = small(inner_heads=8, se="both", patch_position=False)
    weights.save(model, tmp_path / "w.safetensors")
    read = weights.read(tmp_path / "w.safetensors")
    assert (read.config, read.heads_known) == (model.config, True)


@pytest.mark.parametrize(
    ("format", "changes", "says"),
    [
        ("timm", {"se": "outer"}, "the timm format has no place for blocks.0.outer.gate"),
        ("official", {"se": "inner"}, "the official format has no place for blocks.0.inner.gate"),
        ("safetensors", {}, "unknown format 'safetensors' to write; valid: tnt, timm, official"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_and_nothing_written(tmp_path, format, changes, says):
    with pytest.raises(ValueError, match=says):
        weights.save(small(**changes), tmp_path / "w.safetensors", format)
    assert list(tmp_path.iterdir()) == []


class Canary:
    """Unpickled the usual way, it would make a file."""

    def __init__(self, file) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    torch.save({"state_dict": small().state_dict(), "hook": Canary(tmp_path / "ran")}, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"is refused: it asks for posix\.mkdir, and opening it could run code"
    ):
        weights.read(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 100, 100_000])
def test_a_truncated_file_is_refused_by_name(tmp_path, suffix, keep):
    file = tmp_path / f"w{suffix}"
    weights.save(small(), file)
    os.truncate(file, keep)
    with pytest.raises(ValueError, match=f"w{suffix}"):
        weights.read(file)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (
            {"conv1.weight": torch.zeros(1)},
            "not the weights of a TNT in any format known here .*conv1.weight",
        ),
        ({"epoch": 3}, "holds no weights under state_dict_ema.*; its keys: epoch"),
        ([1, 2], "holds a list, not named tensors"),
        ({"pixel_embed.proj.weight": torch.zeros(24, 3, 7, 7)}, "incomplete weights: no class_token"),
        (
            {"pixel_embed.proj.weight": torch.zeros(24, 3, 7, 7), "fc.weight": torch.zeros(1)},
            "unknown tensors fc.weight",
        ),
    ],
)
def test_what_is_no_tnt_is_refused_with_what_it_is(tmp_path, stored, says):
    torch.save(stored, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=says):
        weights.read(tmp_path / "w.pth")


def test_a_missing_and_a_misshapen_tensor_are_named(tmp_path):
    state = TIMM.from_ours(small().state_dict())
    without = {name: tensor for name, tensor in state.items() if name != "blocks.1.mlp.fc2.bias"}
    torch.save(without, tmp_path / "w.pth")
    with pytest.raises(
        ValueError, match=r"incomplete weights of tnt_s .*: no blocks\.1\.outer\.mlp\.fc2\.bias"
    ):
        weights.read(tmp_path / "w.pth")
    torch.save(state | {"norm.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"norm.weight has shape \(3,\) instead of \(384,\)"):
        weights.read(tmp_path / "w.pth")
    torch.save(
        {name: tensor for name, tensor in state.items() if name != "blocks.0.attn_in.v.weight"},
        tmp_path / "w.pth",
    )
    with pytest.raises(
        ValueError, match=r"no queries and keys, or no values, for blocks.0.inner.attn.qkv.weight"
    ):
        weights.read(tmp_path / "w.pth")


@pytest.mark.slow
def test_the_command_translates_and_says_what_it_did(tmp_path, capsys):
    model = small()
    torch.save(official_checkpoint(model), tmp_path / "in.pth.tar")
    command = [str(tmp_path / "in.pth.tar"), str(tmp_path / "out.safetensors"), "--to", "timm"]
    assert weights.main(command) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "official format, tnt_s (depth=2, classes=5)" in said.out
    read = like(model)
    assert weights.load(read, tmp_path / "out.safetensors").format == "timm"
    assert torch.equal(logits(read), logits(model))


def test_the_command_answers_a_mistake_in_one_line(tmp_path, capsys):
    assert weights.main([str(tmp_path / "nothing.pth"), str(tmp_path / "out.safetensors")]) == 2
    assert capsys.readouterr().err == f"tnt.weights: no weights at {tmp_path / 'nothing.pth'}\n"
    with pytest.raises(SystemExit, match="2"):
        weights.main(["a", "b", "--to", "tim"])
    assert "invalid choice: 'tim'" in capsys.readouterr().err
