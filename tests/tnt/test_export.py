import re

import pytest
import timm
import torch
import yaml

import tnt
from tnt import export, weights
from tnt.export import main, to_hub_folder, to_onnx, to_program, to_timm
from tnt.images import centre, picture_of, to_tensor
from tnt.model_card import model_card


def small(**changes: object) -> tnt.TNT:
    torch.manual_seed(0)
    fields: dict = {"depth": 1, "classes": 5, "image_size": 32}
    return tnt.create_model("tnt_ti", **(fields | changes)).eval()


def logits(model: torch.nn.Module, size: int = 32, batch: int = 5) -> torch.Tensor:
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return model(images)


def gap(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1)).item()


@pytest.mark.slow
def test_an_onnx_graph_gives_the_logits_for_any_batch(tiny, tmp_path):
    import onnxruntime

    model = tiny()
    assert to_onnx(model, tmp_path / "x.onnx") <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    for batch in (1, 4, 9):
        images = torch.randn(batch, 3, 24, 24)
        (found,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            assert gap(torch.from_numpy(found), model(images)) <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


@pytest.mark.slow
def test_a_program_gives_the_logits_without_our_code_for_any_batch(tmp_path):
    model = small(se="outer", word_edge=8, form="legacy")
    assert to_program(model, tmp_path / "x.pt2") <= 1e-4
    program = torch.export.load(tmp_path / "x.pt2").module()
    for batch in (1, 4, 9):
        assert gap(logits(program, batch=batch), logits(model, batch=batch)) <= 1e-5


def test_timm_reads_the_weights_under_its_own_name(tmp_path):
    model = tnt.create_model("tnt_s", depth=1).eval()
    assert to_timm(model, tmp_path / "x.safetensors") <= 1e-4
    theirs = timm.create_model("tnt_s_patch16_224", depth=1, checkpoint_path=str(tmp_path / "x.safetensors"))
    assert gap(logits(theirs.eval(), 224, 1), logits(model, 224, 1)) <= 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"inner_heads": 1, "word_edge": 8},
        {"form": "legacy"},
        {"patch_position": False, "word_position": False},
        {"classes": 0},
    ],
    ids=str,
)
def test_timm_builds_the_same_network_from_a_hub_folder_alone(tmp_path, changes):
    model = small(**changes)
    to_hub_folder(model, tmp_path / "hub")
    theirs = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    assert gap(logits(theirs), logits(model)) <= 1e-5
    assert sorted(path.name for path in tmp_path.glob("hub/*")) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


def test_timm_prepares_images_for_a_hub_folder_as_we_do(tmp_path):
    to_hub_folder(small(), tmp_path / "hub", names=["ant", "bee", "cat", "dog", "eel"])
    theirs = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(theirs))
    picture = picture_of(torch.randint(0, 256, (50, 70, 3), dtype=torch.uint8).numpy())
    assert torch.equal(transform(picture), to_tensor(centre(picture, 32)))
    assert theirs.pretrained_cfg["label_descriptions"]["3"] == "dog"


def test_a_hub_folder_is_weights_for_us_too(tmp_path):
    model = small(inner_heads=1)
    to_hub_folder(model, tmp_path / "hub")
    read, held = weights.open_model(tmp_path / "hub")
    assert held.config == model.config
    assert torch.equal(logits(read), logits(model))


def test_the_card_of_a_model_without_a_record_says_that_nothing_is_known(tmp_path):
    weights.save(small(), tmp_path / "w.safetensors")
    command = [str(tmp_path / "hub"), "--to", "hub-folder", "--weights", str(tmp_path / "w.safetensors")]
    assert main(command) == 0
    card = (tmp_path / "hub" / "README.md").read_text()
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", card, flags=re.M))
    assert rows["top-1, moving average"] == rows["run"] == rows["device-hours"] == "not known"


def test_a_hub_reads_the_results_from_the_cards_head():
    record = {
        "id": "354dda817500",
        "sha256": "ab",
        "exported": "ema",
        "ema": {"top1": 97.5, "top5": 99.7, "loss": 0.1, "images": 360},
        "science": {"data": {"name": "digits", "validation": "validation"}},
        "right": "not for people",
    }
    card = model_card(small(), "tnt-digits", record)
    head = yaml.safe_load(card.split("---")[1])
    (result,) = head["model-index"][0]["results"]
    assert result["dataset"] == {"type": "digits", "name": "digits", "split": "validation"}
    assert [metric["value"] for metric in result["metrics"]] == [97.5, 99.7]
    assert result["source"] == {"name": "run 354dda817500, record ab"}
    assert "not for people" not in card
    assert "model-index" not in yaml.safe_load(model_card(small(), "tnt-digits").split("---")[1])


def test_what_is_no_record_is_refused(tmp_path, capsys):
    weights.save(small(), tmp_path / "w.safetensors")
    (tmp_path / "other.json").write_text('{"top1": 99.9}')
    command = [str(tmp_path / "hub"), "--to", "hub-folder", "--weights", str(tmp_path / "w.safetensors")]
    assert main([*command, "--record", str(tmp_path / "other.json")]) == 2
    assert "is no record of a run" in capsys.readouterr().err


def test_what_differs_from_the_model_is_not_published(tmp_path, monkeypatch):
    model = small()
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="was not written: its logits differ"):
        to_timm(model, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="was not written"):
        to_hub_folder(model, tmp_path / "hub")
    assert not list(tmp_path.iterdir())


def test_a_head_that_timm_lacks_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"no squeeze-and-excitation \(se=outer\); export to onnx"):
        to_hub_folder(small(se="outer"), tmp_path / "hub")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x.onnx", "--to", "timm"], "a name for timm ends in .safetensors or .pth"),
        (["x.onnx", "--to", "onnx", "--record", "r.json"], "--record and --classes describe a hub-folder"),
        (["hub", "--to", "hub-folder", "--record", "gone.json"], "no record at"),
        (["hub", "--to", "hub-folder", "--record", "bad.json"], "bad.json is damaged"),
        (["hub", "--to", "hub-folder", "--classes", "bad.json"], "names 1 classes, the head has 5"),
        (["full", "--to", "hub-folder"], "is there already and not empty"),
        (["no/x.safetensors", "--to", "timm"], "no folder"),
    ],
)
def test_wrong_use_gets_one_line(tmp_path, capsys, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    weights.save(small(), tmp_path / "w.safetensors")
    (tmp_path / "bad.json").write_text("[")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    assert main([*arguments, "--weights", "w.safetensors"]) == 2
    printed = capsys.readouterr().err
    assert says in printed
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "hub").exists()


@pytest.mark.slow
@pytest.mark.parametrize("to", export.TARGETS)
def test_tnt_s_is_exported_from_the_command_line(tmp_path, to, capsys):
    weights.save(tnt.create_model("tnt_s", depth=2), tmp_path / "w.safetensors")
    out = tmp_path / f"tnt{export.SUFFIXES[to][0]}"
    assert main([str(out), "--to", to, "--weights", str(tmp_path / "w.safetensors")]) == 0
    assert f"tnt_s (depth=2) for {to}; logits agree within" in capsys.readouterr().out
    assert out.exists()
