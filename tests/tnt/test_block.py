"""The network against a slow oracle: the paper's equations patch by patch and head by head, in float64.

What the published code adds to the equations (norms around Eq. 8, the stem's convolution) is taken from the
public sources' description, not from this project's modules; only the weights are shared.
"""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from tnt import TNT
from tnt.block import TransformerBlock, path_draws
from tnt.embed import WordStem


class Oracle:
    def __init__(self, model: TNT) -> None:
        self.w = {name: tensor.double() for name, tensor in model.state_dict().items()}
        self.config = model.config

    def logits(self, image: torch.Tensor) -> torch.Tensor:
        """One image C, H, W."""
        cfg, w = self.config, self.w
        words = self.stem(image.double())
        if cfg.word_position:
            words = [patch + w["word_position"][0] for patch in words]  # Eq. 13
        z = [w["class_token"][0, 0]]
        for patch in words:
            flat = self.norm(patch.reshape(-1), "to_patch.norm_words")
            z.append(self.norm(self.linear(flat, "to_patch.proj"), "to_patch.norm_patch"))
        if cfg.patch_position:
            z = [token + w["patch_position"][0, i] for i, token in enumerate(z)]  # Eq. 12
        for depth in range(cfg.depth):
            at = f"blocks.{depth}"
            words = [self.transformer(patch, f"{at}.inner", cfg.inner_heads) for patch in words]  # Eqs. 6–7
            z = [z[0], *(token + self.eq8(patch, at) for token, patch in zip(z[1:], words, strict=True))]
            z = list(self.transformer(torch.stack(z), f"{at}.outer", cfg.outer_heads))  # Eqs. 9–10
        return self.linear(self.norm(z[0], "norm"), "head")

    def stem(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Each patch's words, by the convolution's definition: one dot product of 7×7 pixels a word."""
        cfg, kernel, bias = self.config, self.w["stem.conv.weight"], self.w["stem.conv.bias"]
        P, s = cfg.patch_size, cfg.word_edge
        rows, columns = image.shape[1] // P, image.shape[2] // P
        patches = []
        for i in range(rows):
            for j in range(columns):
                field = (
                    image[:, i * P : (i + 1) * P, j * P : (j + 1) * P] if cfg.form == "official" else image
                )
                y0, x0 = (0, 0) if cfg.form == "official" else (i * P, j * P)
                padded = torch.zeros(field.shape[0], field.shape[1] + 6, field.shape[2] + 6).double()
                padded[:, 3:-3, 3:-3] = field
                words = [
                    (kernel * padded[:, y0 + y : y0 + y + 7, x0 + x : x0 + x + 7]).sum((1, 2, 3)) + bias
                    for y in range(0, P, s)
                    for x in range(0, P, s)
                ]
                patches.append(torch.stack(words))
        return patches

    def eq8(self, words: torch.Tensor, at: str) -> torch.Tensor:
        if self.config.form == "legacy":
            flat = torch.cat([self.norm(word, f"{at}.to_patch.norm_words") for word in words])
            return self.linear(flat, f"{at}.to_patch.proj")
        flat = self.norm(words.reshape(-1), f"{at}.to_patch.norm_words")
        return self.norm(self.w[f"{at}.to_patch.proj.weight"] @ flat, f"{at}.to_patch.norm_patch")

    def transformer(self, x: torch.Tensor, at: str, heads: int) -> torch.Tensor:
        x = x + self.attention(self.norm(x, f"{at}.norm1"), f"{at}.attn", heads)
        hidden = self.linear(self.norm(x, f"{at}.norm2"), f"{at}.mlp.fc1")
        hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        t = self.linear(hidden, f"{at}.mlp.fc2")
        if f"{at}.gate.fc1.weight" in self.w:  # squeeze, excite, and the gate's own residual
            a = self.norm(sum(t) / len(t), f"{at}.gate.norm")
            a = torch.tanh(self.linear(self.linear(a, f"{at}.gate.fc1").clamp(min=0), f"{at}.gate.fc2"))
            t = t + torch.stack([a * token for token in t])
        return x + t

    def attention(self, x: torch.Tensor, at: str, heads: int) -> torch.Tensor:
        """Eq. 1 for each head and each query."""
        width = x.shape[1] // heads
        q, k, v = (x @ part.T for part in self.w[f"{at}.qkv.weight"].chunk(3))
        mixed = torch.zeros_like(x)
        for head in range(heads):
            columns = slice(head * width, (head + 1) * width)
            for i in range(len(x)):
                scores = torch.stack([q[i, columns] @ key for key in k[:, columns]]) / math.sqrt(width)
                weights = scores.exp() / scores.exp().sum()
                mixed[i, columns] = sum(
                    weight * value for weight, value in zip(weights, v[:, columns], strict=True)
                )
        return self.linear(mixed, f"{at}.proj")

    def linear(self, x: torch.Tensor, at: str) -> torch.Tensor:
        return x @ self.w[f"{at}.weight"].T + self.w[f"{at}.bias"]

    def norm(self, x: torch.Tensor, at: str) -> torch.Tensor:
        """Eq. 3, with PyTorch's epsilon of 1e-5, which every published TNT has."""
        mean = x.mean(-1, keepdim=True)
        deviation = ((x - mean).square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return (x - mean) / deviation * self.w[f"{at}.weight"] + self.w[f"{at}.bias"]


@pytest.mark.parametrize("form", ["official", "legacy"])
@pytest.mark.parametrize(
    ("patch_position", "word_position"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_every_position_switch_computes_the_papers_equations(tiny, form, patch_position, word_position):
    model = tiny(form=form, patch_position=patch_position, word_position=word_position).double()
    images = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    oracle = Oracle(model)
    expected = torch.stack([oracle.logits(image) for image in images])
    torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("se", ["inner", "outer", "both"])
@pytest.mark.parametrize("form", ["official", "legacy"])
def test_every_place_of_the_gate_computes_squeeze_and_excitation(tiny, form, se):
    model = tiny(form=form, se=se, patch_dim=12, outer_heads=4).double()
    image = torch.randn(3, 24, 24, dtype=torch.float64)
    torch.testing.assert_close(model(image[None])[0], Oracle(model).logits(image), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("word_edge", "word_dim", "inner_heads"), [(1, 4, 1), (2, 6, 2), (4, 24, 8), (8, 96, 4)]
)
def test_every_word_edge_computes_the_papers_equations(tiny, word_edge, word_dim, inner_heads):
    model = tiny(word_edge=word_edge, word_dim=word_dim, inner_heads=inner_heads, depth=1).double()
    image = torch.randn(3, 24, 24, dtype=torch.float64)
    torch.testing.assert_close(model(image[None])[0], Oracle(model).logits(image), rtol=1e-9, atol=1e-9)


def test_without_any_position_the_class_token_cannot_tell_patches_apart(tiny):
    model = tiny(patch_position=False).double()
    images = torch.randn(1, 3, 24, 24, dtype=torch.float64)
    swapped = images.clone()
    swapped[..., :8, :8], swapped[..., 16:, 8:16] = images[..., 16:, 8:16], images[..., :8, :8]
    torch.testing.assert_close(model(images), model(swapped), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(tiny().double()(images), tiny().double()(swapped), rtol=1e-3)


def test_drop_path_leaves_whole_residuals_out_and_keeps_the_expectation():
    drawn = torch.randint(2**32, (2, 20_000), generator=torch.Generator().manual_seed(0))
    x = torch.randn(20_000, 3, 6, dtype=torch.float64)
    for which in (0, 1):
        block = TransformerBlock(dim=6, heads=2, mlp_ratio=4, drop_path=0.3, gated=False).double()
        other = block.mlp.fc2 if which == 0 else block.attn.proj  # adds nothing, so that one residual is seen
        with torch.no_grad():
            other.weight.zero_()
            other.bias.zero_()
            trained, whole = block(x, drawn) - x, block.eval()(x) - x  # the latter: no path is dropped
        dropped = drawn[which] < 0.3 * 2**32
        assert trained[dropped].eq(0).all()  # a sequence is left out as a whole
        torch.testing.assert_close(trained[~dropped], whole[~dropped] / 0.7)
        assert (~dropped).double().mean().item() / 0.7 == pytest.approx(1, abs=0.02)


def test_the_stem_as_one_product_is_the_stem_and_has_its_gradients():
    """Only GPUs take it; what it computes can be seen on a CPU."""
    stem, product = (WordStem(3, 24, 16, 4, patches_first=True) for _ in range(2))
    product.load_state_dict(stem.state_dict())
    images = [torch.randn(2, 3, 32, 48).requires_grad_()]
    images.append(images[0].detach().clone().requires_grad_())
    patches = images[1].view(2, 3, 2, 16, 3, 16).permute(0, 2, 4, 1, 3, 5).reshape(12, 3, 16, 16)
    words = [stem(images[0]), product.as_product(patches)]
    torch.testing.assert_close(*words, rtol=1e-5, atol=1e-5)
    by = torch.randn_like(words[0])
    for each in words:
        (each * by).sum().backward()
    torch.testing.assert_close(images[0].grad, images[1].grad, rtol=1e-5, atol=1e-5)
    for one, other in zip(stem.parameters(), product.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_what_is_drawn_for_a_path_stays_what_it_is():
    """A change here is another science: every recorded run would drop other paths."""
    keys = torch.tensor([0, 1, 2**32, -1, 1234567890123456789])
    drawn = path_draws(keys[:, None], torch.tensor([0, 1, 4727]))
    assert drawn.tolist() == [
        [0, 3405691463, 4221143556],
        [1317927411, 2384406964, 2614088503],
        [2261973619, 306117789, 3969772496],
        [1902347285, 1606406396, 1598292854],
        [283942679, 3470386328, 3454778430],
    ]
    assert path_draws(keys[3], torch.tensor(1)) == drawn[3, 1]  # whatever else is asked for


def test_the_draws_of_images_and_of_places_are_uniform_and_independent():
    keys = torch.randint(2**63 - 1, (300,), generator=torch.Generator().manual_seed(0))
    drawn = path_draws(keys[:, None], torch.arange(400)).numpy() / 2**32
    assert kstest(drawn.ravel(), "uniform").pvalue > 0.01
    for table in (drawn, drawn.T):
        assert kstest(np.sqrt(table.shape[1] * 12) * (table.mean(1) - 0.5), "norm").pvalue > 0.01
        between = np.corrcoef(table)[np.triu_indices(len(table), 1)] * np.sqrt(table.shape[1])
        assert between.std() == pytest.approx(1, abs=0.02)
        assert abs(between.mean()) < 0.02


def test_drop_path_grows_linearly_with_depth(tiny):
    rates = [block.inner.drop_path for block in tiny(depth=3, drop_path=0.2).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2])
    assert rates == [block.outer.drop_path for block in tiny(depth=3, drop_path=0.2).blocks]
