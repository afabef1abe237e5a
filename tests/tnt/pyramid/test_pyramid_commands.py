"""The commands take a PyramidTNT as they take a TNT."""

import numpy as np
import pytest
import torch
from PIL import Image

from tnt import export, features, predict
from tnt.figures import command, data
from tnt.figures.command import main
from tnt.weights import models as weights


@pytest.fixture
def saved(small, tmp_path):
    weights.save(small(image_size=64), tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return str(tmp_path / "photo.png")


@pytest.fixture
def image():
    return torch.randn(3, 128, 128, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


def test_images_are_classified_and_described(saved, photo, tmp_path, capsys):
    assert predict.main([photo, "--weights", saved, "--top", "2", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    out = tmp_path / "f.npz"
    asked = ["--weights", saved, "--depths", "2,final", "--kinds", "class,words"]
    assert features.main([photo, str(out), *asked]) == 0
    with np.load(out) as held:
        shapes = {name: held[name].shape for name in held.files if "." in name}
    assert shapes == {
        "depth02.class": (1, 20), "depth02.words": (1, 16, 16, 6),
        "final.class": (1, 40), "final.words": (1, 1, 16, 12),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("fig5", ()),
        ("attention", ("--depths", "2", "--patch", "1,3", "--word", "0,2")),
        ("cam", ("--depths", "3")),
    ],
)
def test_pictures_are_drawn(saved, photo, tmp_path, name, more):
    arguments = ["--weights", saved, "--image", photo, "--dpi", "50", "--size", "128", *more]
    assert main([name, str(tmp_path / "x.svg"), *arguments]) == 0
    drawn = (tmp_path / "x.svg").read_text()
    assert "PyramidTNT" in drawn
    assert "block" not in drawn


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--size", "96"), "--size 96 is not a whole number of 64-pixel patches; nearest: 128"),
        (("--patch", "class", "--depths", "2"), "a PyramidTNT: no class token; give --patch"),
        (("--depths", "1,2"), "a PyramidTNT: stages have other patches; give one by --depths"),
        (("--depths", "3", "--patch", "2,0", "--size", "64"), "patch 2,0 is outside; rows 0 to 1"),
    ],
)
def test_what_a_pyramid_has_not_is_said(saved, photo, tmp_path, capsys, more, says):
    asked = ["attention", str(tmp_path / "x.svg"), "--weights", saved, "--image", photo]
    assert main([*asked, *more]) == 2
    assert says in capsys.readouterr().err


def test_where_a_patch_looks_is_what_its_attention_gives_the_patches(small, image):
    """From the weights shown, the values of the patches give the attention's own output."""
    model = small()
    found = data.attention_maps(model, image, [2], (1, 3), (0, 2))[2]
    assert (tuple(found.outer.shape), tuple(found.inner.shape)) == ((10, 8, 8), (2, 4, 4))
    torch.testing.assert_close(found.outer.sum(dim=(1, 2)), torch.ones(10))
    attn, seen = model.stages[1].blocks[0].outer.attn, []
    handle = attn.register_forward_hook(lambda _, inputs, output: seen.append((inputs, output)))
    with torch.no_grad():
        model(image[None])
    handle.remove()
    (x, _, grid), output = seen[0]
    with torch.no_grad():
        _, _, v = attn._heads(x, grid)  # 1, k, 16, d/k: of 2×2 patches
        v = v.unflatten(2, (4, 4)).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).flatten(2, 3)
        expected = attn.proj((found.outer.flatten(1)[:, None] @ v[0]).flatten())
    torch.testing.assert_close(output[0, 1 * 8 + 3], expected, rtol=1e-4, atol=1e-5)


def test_class_activation_of_the_last_stage_is_the_share_of_each_patch_in_the_logit(small, image):
    """The head is linear in the mean of the patches: Grad-CAM there is that map, by n, cut off below 0."""
    model = small()
    found = data.class_activation(model, image, labels=[3])
    with torch.no_grad():
        shares = model.forward_features(image[None])[0] @ model.head.weight[3] / 4
    torch.testing.assert_close(found[3][1], shares.relu().view(2, 2))


def test_figure_4_puts_stages_beside_blocks_at_the_same_share_of_the_depth(small, image, monkeypatch):
    asked, chosen = [], command.ChosenModel(small(), "pyramid_tnt_ti (depths=…)", True, "")

    def maps(model, image, depths):
        asked.append(depths)
        return {depth: torch.randn(12, 4, 4) for depth in depths}

    peer = torch.nn.Module()
    peer.blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(12))
    monkeypatch.setattr(data, "peer_model", lambda *_: peer)
    monkeypatch.setattr(data, "channel_maps", maps)
    monkeypatch.setattr(data, "tsne_plane", lambda *_: data.Plane([torch.zeros(12, 2)] * 2, [0, 0]))
    options = command.argparse.Namespace(depths=None, peer_weights=None, seed=0, maps=2)
    command.figure_4(chosen, image, options)
    assert asked == [[3, 6, 12], [1, 2, 4]]


@pytest.mark.nightly
def test_the_graph_of_onnx_gives_the_same_logits(small, tmp_path):
    assert export.to_onnx(small(image_size=64), tmp_path / "x.onnx") <= 1e-4


def test_what_timm_has_not_is_refused(small, tmp_path):
    for write in (export.to_timm, export.to_hub_folder):
        with pytest.raises(ValueError, match="timm has no PyramidTNT"):
            write(small(image_size=64), tmp_path / "x")
