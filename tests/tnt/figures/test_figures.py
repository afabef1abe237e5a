"""What the pictures show is checked against slow ways to compute it; how they look is for eyes."""

import pytest
import torch
from PIL import Image

import tnt
from tnt import weights
from tnt.commandline import ChosenModel
from tnt.figures import canvas, command, data
from tnt.figures.command import main

SMALL = {"fig4": "64", "fig5": "24", "attention": "24", "cam": "24"}


@pytest.fixture
def saved(tiny, tmp_path):
    weights.save(tiny(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.fixture
def image():
    return torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


@pytest.fixture(scope="module")
def deit():
    return data.peer_model(None, seed=0)


def draw(name: str, out, *arguments: str) -> int:
    return main([name, str(out), "--dpi", "50", *arguments])


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("fig4", marks=pytest.mark.slow), "fig5", "attention", "cam"])
def test_a_seed_gives_the_same_bytes_and_both_kinds_of_file(name, saved, tmp_path, capsys):
    arguments = ["--weights", str(saved), "--size", SMALL[name], "--depths", "3" if name == "cam" else "1,3"]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        assert draw(name, tmp_path / folder / "x", *arguments) == 0
    printed = capsys.readouterr().out.split()
    assert printed[:2] == [str(tmp_path / "one" / f"x{suffix}") for suffix in (".png", ".svg", ".pdf")]
    for suffix in (".png", ".svg", ".pdf"):
        one, two = ((tmp_path / folder / f"x{suffix}").read_bytes() for folder in ("one", "two"))
        assert one == two
    with Image.open(tmp_path / "one" / "x.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 100  # not an empty page
    assert b"<svg" in (tmp_path / "one" / "x.svg").read_bytes()


def test_every_figure_is_drawn_here():
    assert set(SMALL) == set(command.FIGURES)


def test_another_seed_draws_other_channels(tiny, deit, monkeypatch):
    monkeypatch.setattr(data, "peer_model", lambda *_: deit)
    points = [torch.zeros(384, 2), torch.zeros(10, 2)]  # t-SNE would differ by itself
    monkeypatch.setattr(data, "tsne_plane", lambda *_: data.Plane(points, [0, 0]))
    image = data.read_square(None, 64)
    options = command.argparse.Namespace(depths="1,3", seed=0, maps=4, peer_weights=None)
    chosen = ChosenModel(tiny(), "tnt_s", False, "w")
    shown = []
    monkeypatch.setattr(canvas, "show_map", lambda axes, found: shown.append(found))
    for seed in (0, 1):
        options.seed = seed
        with canvas.style():
            command.figure_4(chosen, image, options)
    ours = [shown[k : k + 8] for k in (8, 24)]  # after DeiT-S's eight maps
    assert not all(torch.equal(*pair) for pair in zip(*ours, strict=True))
    assert len(shown) == 32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fig5", "attention", "cam"])
def test_tnt_s_with_random_weights_is_drawn_and_said_to_be_random(name, tmp_path, monkeypatch):
    notes = []
    shown = canvas.note
    monkeypatch.setattr(canvas, "note", lambda figure, text: (notes.append(text), shown(figure, text)))
    assert draw(name, tmp_path / "x.png") == 0
    assert "TNT-S untrained: random weights (seed 0)" in notes[0].warning
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.slow
def test_figure_4_says_which_of_its_networks_are_untrained(tiny, saved, deit, tmp_path, monkeypatch):

    points = [torch.zeros(384, 2), torch.zeros(10, 2)]
    monkeypatch.setattr(data, "tsne_plane", lambda *_: data.Plane(points, [0, 0]))

    torch.save(deit.state_dict(), tmp_path / "deit.pth")
    real_peer = data.peer_model
    read = real_peer(tmp_path / "deit.pth", seed=1)
    assert torch.equal(read.head.weight, deit.head.weight)
    monkeypatch.setattr(data, "peer_model", lambda *_: deit)
    options = command.argparse.Namespace(depths="1,3", seed=0, maps=2, peer_weights=None)
    image = torch.rand(3, 64, 64)

    def warning(random: bool, peer) -> str:
        options.peer_weights = peer
        chosen = ChosenModel(tiny(), "tnt_s (depth=3)", random, "w.safetensors")
        found = []
        with canvas.style(), pytest.MonkeyPatch.context() as patched:
            patched.setattr(canvas, "note", lambda figure, text: found.append(text.warning))
            command.figure_4(chosen, image, options)
        return found[0].partition(" untrained")[0]

    assert warning(True, None) == "DeiT-S and TNT-S*"
    assert warning(False, None) == "DeiT-S"
    assert warning(True, tmp_path / "deit.pth") == "TNT-S*"
    assert warning(False, tmp_path / "deit.pth") == ""
    with pytest.raises(ValueError, match=r"holds no weights of timm's deit_small_patch16_224"):
        real_peer(saved, 0)


def test_the_maps_of_deit_are_its_tokens_at_their_places(deit):
    image = torch.randn(3, 32, 48)
    tokens = []
    handle = deit.blocks[5].register_forward_hook(lambda *found: tokens.append(found[2]))
    maps = data.channel_maps(deit, image, [6])[6]
    handle.remove()
    assert maps.shape == (384, 2, 3)
    torch.testing.assert_close(maps[:, 1, 2], tokens[0][0, 1 + 1 * 3 + 2])


def test_words_are_averaged_at_their_places(tiny, image):
    model = tiny()
    found = data.averaged_words(model, image, [2])[2]
    with torch.no_grad():
        words = model.forward_intermediates(image[None], [2])[2].words[0]  # n=9, m=16, c=6
    assert found.shape == (12, 12)
    assert found[5, 10] == pytest.approx(words[1 * 3 + 2, 1 * 4 + 2].mean().item(), abs=1e-6)


def test_maps_that_are_alike_up_to_scale_and_sign_count_as_alike():
    base = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(0))
    scales = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, 7.0]).view(-1, 1, 1)
    noise = torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(1))
    plane = data.tsne_plane([base * scales + 4, noise], seed=0)
    assert plane.likeness[0] == pytest.approx(1, abs=1e-6)
    correlation = torch.corrcoef(noise.flatten(1)).abs()
    assert plane.likeness[1] == pytest.approx(((correlation.sum() - 6) / 30).item(), abs=1e-6)
    assert [tuple(points.shape) for points in plane.points] == [(6, 2), (6, 2)]


@pytest.mark.parametrize("patch", [(1, 2), None])
def test_attention_is_that_which_the_block_applies(tiny, image, patch):
    """From the output of the attention layer: values that are one-hot in the token give its weights back."""
    model = tiny()
    found = data.attention_maps(model, image, [2], patch, (3, 1))[2]
    assert found.outer.shape == (5, 3, 3)
    assert found.inner.shape == (3, 4, 4)
    inputs = {}
    block = model.blocks[1]
    for name in ("inner", "outer"):
        getattr(block, name).attn.register_forward_pre_hook(
            lambda _, taken, name=name: inputs.__setitem__(name, taken[0])
        )
    with torch.no_grad():
        model(image[None])
        outer = slow_attention(block.outer.attn, inputs["outer"][0])  # heads, 1+n, 1+n
        of_patch = inputs["inner"][5 if patch else 4]  # patch 1,2 of 3×3; without a patch the middle one
        inner = slow_attention(block.inner.attn, of_patch)
    torch.testing.assert_close(found.outer.flatten(1), outer[:, 6 if patch else 0, 1:])
    torch.testing.assert_close(found.inner.flatten(1), inner[:, 3 * 4 + 1])


def slow_attention(layer: tnt.attention.Attention, x: torch.Tensor) -> torch.Tensor:
    """Head by head and token by token."""
    D, heads = x.shape[1], layer.heads
    q, k = layer.qkv.weight[:D] @ x.T, layer.qkv.weight[D : 2 * D] @ x.T
    rows = []
    for head in range(heads):
        part = slice(head * D // heads, (head + 1) * D // heads)
        for token in range(len(x)):
            scores = [(q[part, token] @ k[part, other]) / (D // heads) ** 0.5 for other in range(len(x))]
            rows.append(torch.stack(scores).softmax(0))
    return torch.stack(rows).unflatten(0, (heads, len(x)))


def test_class_activation_is_grad_cam_by_finite_differences(tiny, image):
    model = tiny().double()
    image = image.double()
    found = data.class_activation(model, image, labels=[3, 0])
    assert list(found) == [3, 0]
    layer = model.blocks[-1].outer.norm1
    taken = []
    handle = layer.register_forward_hook(lambda *entry: taken.append(entry[2]))
    with torch.no_grad():
        score = model(image[None])[0].softmax(0)[3]
    handle.remove()

    def logit(tokens: torch.Tensor) -> float:
        handle = layer.register_forward_hook(lambda *_: tokens)
        with torch.no_grad():
            value = model(image[None])[0, 3].item()
        handle.remove()
        return value

    mean_gradient = torch.zeros(10, dtype=torch.float64)
    for channel in range(10):
        for step in (1e-5, -1e-5):
            moved = taken[0].clone()
            moved[0, 1:, channel] += step
            mean_gradient[channel] += logit(moved) / (2 * step) / 9
    expected = (taken[0][0, 1:] @ mean_gradient).relu().view(3, 3)
    assert found[3][0] == pytest.approx(score.item())
    torch.testing.assert_close(found[3][1], expected, rtol=1e-5, atol=1e-8)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_the_best_classes_are_explained_unless_told_otherwise(tiny, image):
    model = tiny()
    found = data.class_activation(model, image, top=2)
    with torch.no_grad():
        assert list(found) == model(image[None])[0].topk(2).indices.tolist()


def test_the_default_image_is_there_and_of_the_size_asked_for():
    image = data.read_square(None, 96)
    assert image.shape == (3, 96, 96)
    assert image.std() > 0.1


def test_a_picture_does_not_depend_on_the_users_own_settings(saved, tmp_path, monkeypatch):
    import matplotlib

    shared = ["--weights", str(saved), "--size", "24"]
    draw("fig5", tmp_path / "a.png", *shared)
    monkeypatch.setitem(matplotlib.rcParams, "font.size", 30)
    monkeypatch.setitem(matplotlib.rcParams, "image.cmap", "jet")
    draw("fig5", tmp_path / "b.png", *shared)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fig5", "OUT", "--size", "25"], "--size 25 is not a whole number of 8-pixel patches; nearest: 24"),
        (["fig5", "OUT", "--depths", "9"], "--depths: '9' is no number from 0 to 3"),
        (["attention", "OUT", "--size", "24", "--depths", "0"], "'0' is no number from 1 to 3"),
        (
            ["attention", "OUT", "--size", "24", "--patch", "3,0"],
            "patch 3,0 is outside; rows 0 to 2, columns 0 to 2",
        ),
        (["attention", "OUT", "--size", "24", "--word", "0,9"], "word 0,9 is outside"),
        (["cam", "OUT", "--size", "24", "--label", "7"], "labels 7 must lie in 0 to 6"),
        (["fig5", "NOWHERE/x", "--size", "24"], "no folder"),
        (["fig5", "OUT", "--size", "24", "--image", "WEIGHTS"], "no image file"),
        (["fig4", "OUT", "--size", "64", "--peer-weights", "gone.pth"], "no weights of timm's deit_small"),
    ],
)
def test_wrong_use_gets_one_line(saved, tmp_path, capsys, arguments, says):
    places = {"OUT": tmp_path / "x", "NOWHERE": tmp_path / "no", "WEIGHTS": saved}
    for name, place in places.items():
        arguments = [argument.replace(name, str(place)) for argument in arguments]
    assert main([*arguments, "--weights", str(saved)]) == 2
    printed = capsys.readouterr().err
    assert says in printed
    assert len(printed.splitlines()) == 1
    assert not list(tmp_path.glob("*x*.png"))
