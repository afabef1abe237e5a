import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import tnt
from tnt import features, weights
from tnt.features import Backbone, extract, feature_shapes, main, patch_map, word_map
from tnt.images import load_image


@pytest.fixture
def saved(tiny, tmp_path):
    weights.save(tiny(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def png(k: int) -> bytes:
    noise = torch.randint(0, 256, (30, 40, 3), generator=torch.Generator().manual_seed(k))
    buffer = io.BytesIO()
    Image.fromarray(noise.byte().numpy()).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path):
    """Seven images, the fourth of them damaged."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(7):
        (folder / f"{k}.png").write_bytes(b"damaged" if k == 3 else png(k))
    return folder


def test_every_patch_and_word_stands_at_its_place():
    B, h, w, q, c, d = 2, 3, 5, 2, 4, 6
    patches = torch.randn(B, 1 + h * w, d)
    words = torch.randn(B, h * w, q * q, c)
    coarse, fine = patch_map(patches, (h, w)), word_map(words, (h, w))
    for i in range(h):
        for j in range(w):
            assert torch.equal(coarse[:, :, i, j], patches[:, 1 + i * w + j])
            for y in range(q):
                for x in range(q):
                    word = words[:, i * w + j, y * q + x]
                    assert torch.equal(fine[:, :, i * q + y, j * q + x], word)


def test_a_backbone_gives_maps_at_the_strides_that_it_declares(tiny):
    model = tiny()
    backbone = Backbone(model, words=[1, 2], patches=[1, 3])
    images = torch.randn(2, 3, 16, 40)
    maps = backbone(images)
    for found, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert found.shape == (2, channels, 16 // stride, 40 // stride)
    assert torch.equal(
        maps[2].flatten(2).transpose(1, 2), model.forward_intermediates(images)[1].patches[:, 1:]
    )


def test_a_backbone_is_trained_with_what_stands_on_it(tiny):
    backbone = Backbone(tiny(), words=[1])
    sum(found.mean() for found in backbone(torch.randn(1, 3, 24, 24))).backward()
    assert backbone.model.stem.conv.weight.grad.abs().sum() > 0


def test_tnt_s_is_a_backbone_of_strides_4_and_16():
    backbone = Backbone(tnt.create_model("tnt_s", depth=2), words=[1])
    with torch.no_grad():
        shapes = [tuple(found.shape) for found in backbone(torch.randn(1, 3, 64, 96))]
    assert shapes == [(1, 24, 16, 24), (1, 384, 4, 6)]


def test_depths_that_are_not_there_are_refused(tiny):
    with pytest.raises(ValueError, match=r"depth 4 must lie in 0 \(stem\) to 3"):
        Backbone(tiny(), patches=[4])
    with pytest.raises(ValueError, match="no depths"):
        Backbone(tiny(), patches=[])
    with pytest.raises(ValueError, match="unknown kind of feature clas; valid: class, patches, words"):
        extract(tiny(), torch.zeros(1, 3, 24, 24), kinds=["clas"])


def test_features_are_those_of_the_model_and_final_ones_are_normed(tiny):
    model = tiny()
    images = torch.randn(2, 3, 24, 24)
    kinds, depths = ["class", "patches", "words"], [0, 3, "final"]
    with torch.no_grad():
        found = extract(model, images, depths, kinds)
        tokens, inside = model.forward_features(images), model.forward_intermediates(images)
    assert torch.equal(found["final.class"], tokens[:, 0])
    assert torch.equal(found["final.patches"], tokens[:, 1:])
    assert torch.equal(found["depth03.class"], inside[3].patches[:, 0])
    assert torch.equal(found["depth00.words"], inside[0].words)
    shapes = feature_shapes(model.config, depths, kinds)
    assert {name: tuple(tensor.shape[1:]) for name, tensor in found.items()} == shapes


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_folder_becomes_one_file_with_names_and_what_was_skipped(
    tiny, saved, photos, tmp_path, suffix, capsys
):
    out = tmp_path / f"f{suffix}"
    command = [str(photos), str(out), "--weights", str(saved), "--batch", "2", "--depths", "1,final"]
    assert main([*command, "--kinds", "class,words"]) == 1
    assert "skipped" in capsys.readouterr().err
    arrays, names, skipped = read(out)
    assert names == [str(photos / f"{k}.png") for k in (0, 1, 2, 4, 5, 6)]
    assert "3.png" in skipped[0]
    images = torch.stack([load_image(name, 24) for name in names])
    with torch.no_grad():
        expected = extract(tiny(), images, [1, "final"], ["class", "words"])
    assert arrays.keys() == expected.keys()
    for name, found in arrays.items():
        np.testing.assert_allclose(found, expected[name].numpy(), rtol=1e-4, atol=1e-5)
    assert not list(tmp_path.glob("*.parts"))


def read(path):
    if path.suffix == ".npz":
        stored = dict(np.load(path).items())
        others = {name: stored.pop(name) for name in ("names", "skipped", "labels", "request")}
        return stored, others["names"].tolist(), others["skipped"].tolist()
    with safe_open(path, "np") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return arrays, json.loads(metadata["names"]), json.loads(metadata["skipped"])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("batches_done", [0, 1, 3])
def test_a_killed_run_goes_on_and_leaves_the_same_bytes(
    saved, photos, tmp_path, monkeypatch, suffix, batches_done, capsys
):
    def command(name: str) -> list[str]:
        return [str(photos), str(tmp_path / f"{name}{suffix}"), "--weights", str(saved), "--batch", "2"]

    main(command("whole"))
    calls = []

    def dies(*arguments: object) -> dict:
        calls.append(1)
        if len(calls) > batches_done:
            raise KeyboardInterrupt
        return extract(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(features, "extract", dies)
        assert main(command("killed")) == 130
    assert not (tmp_path / f"killed{suffix}").exists()
    # What a kill in the middle of a write leaves: rows and half a line that no index names.
    parts = tmp_path / f"killed{suffix}.parts"
    for rows in parts.glob("*.rows"):
        rows.write_bytes(rows.read_bytes() + b"half a row")
    with (parts / "index.jsonl").open("a") as index:
        index.write('{"names": ["half')
    capsys.readouterr()
    assert main(command("killed")) == 1
    said = capsys.readouterr().err
    assert ("continuing after" in said) == (batches_done > 0)
    whole, killed = (tmp_path / f"{name}{suffix}" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_finished_file_is_left_alone_and_another_request_is_refused(
    saved, photos, tmp_path, suffix, capsys
):
    out = tmp_path / f"f{suffix}"
    command = [str(photos), str(out), "--weights", str(saved)]
    assert main(command) == 1
    before, skipped = out.stat().st_mtime_ns, capsys.readouterr().err
    assert "skipped" in skipped
    assert main(command) == 1
    assert capsys.readouterr() == (f"{out}: already complete\n", skipped)
    assert main([*command, "--depths", "1"]) == 2
    assert "is there already, from another request; choose another name" in capsys.readouterr().err
    assert out.stat().st_mtime_ns == before


def test_the_beginning_of_another_request_is_not_continued(saved, photos, tmp_path, monkeypatch, capsys):
    command = [str(photos), str(tmp_path / "f.npz"), "--weights", str(saved)]
    with monkeypatch.context() as patched:
        patched.setattr(features, "extract", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(command) == 130
    (photos / "0.png").write_bytes(png(9) + b" ")
    assert main(command) == 2
    assert "holds the beginning of another request" in capsys.readouterr().err


def test_two_processes_do_not_write_one_file(saved, photos, tmp_path, monkeypatch, capsys):
    command = [str(photos), str(tmp_path / "f.npz"), "--weights", str(saved)]
    statuses = []

    def meanwhile(*arguments: object) -> dict:
        statuses.append(main(command))
        return extract(*arguments)

    monkeypatch.setattr(features, "extract", meanwhile)
    main(command)
    assert statuses == [2]
    assert "another process is writing" in capsys.readouterr().err


def write_shard(path, images: dict[str, tuple[bytes, int]]) -> None:
    with tarfile.open(path, "w") as archive:
        for key, (content, label) in images.items():
            for name, data in ((f"{key}.png", content), (f"{key}.cls", str(label).encode())):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


def test_shards_keep_their_labels(saved, tmp_path, capsys):
    write_shard(tmp_path / "0.tar", {"a": (png(0), 5), "b": (b"damaged", 1)})
    write_shard(tmp_path / "1.tar", {"c": (png(2), 3)})
    shards = [str(tmp_path / "0.tar"), str(tmp_path / "1.tar")]
    assert main([*shards, str(tmp_path / "f.npz"), "--weights", str(saved), "--half"]) == 1
    stored = np.load(tmp_path / "f.npz")
    assert stored["names"].tolist() == ["0.tar/a.png", "1.tar/c.png"]
    assert stored["labels"].tolist() == [5, 3]
    assert stored["final.class"].dtype == np.float16
    assert "0.tar/b.png" in stored["skipped"][0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["PHOTOS", "OUT.txt"], "give a name that ends in .npz or .safetensors"),
        (["PHOTOS", "NOWHERE/f.npz"], "no folder"),
        (["PHOTOS", "OUT.npz", "--depths", "4"], "--depths: '4' is no number from 0 to 3"),
        (["PHOTOS", "OUT.npz", "--depths", "first"], "'first' is no number from 0 to 3"),
        (
            ["PHOTOS", "OUT.npz", "--kinds", "heads"],
            "unknown kind of feature heads; valid: class, patches, words",
        ),
        (["SHARD", "PHOTOS", "OUT.npz"], "shards and images at once"),
        (["CUT", "OUT.npz"], "is truncated"),
        (["PHOTOS/3.png", "OUT.npz"], None),
    ],
)
def test_wrong_use_gets_one_line(saved, photos, tmp_path, capsys, arguments, says):
    write_shard(tmp_path / "s.tar", {"a": (png(0), 5)})
    (tmp_path / "cut.tar").write_bytes((tmp_path / "s.tar").read_bytes()[:700])
    places = {"PHOTOS": photos, "OUT": tmp_path / "f", "NOWHERE": tmp_path / "no"}
    places |= {"SHARD": tmp_path / "s.tar", "CUT": tmp_path / "cut.tar"}
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    status = main([*arguments, "--weights", str(saved)])
    printed = capsys.readouterr().err
    if says is None:  # all images unreadable: a file without rows, and the names of what was skipped
        assert status == 1
        assert np.load(tmp_path / "f.npz")["final.class"].shape == (0, 10)
        return
    assert status == 2
    assert says in printed
    assert len(printed.splitlines()) == 1
