"""PyramidTNT written down from its description, slowly and in float64, on tensors under the authors' names.

Nothing of `tnt` is used. Words are moved one by one, and norms, attention and BatchNorm are spelled out.
"""

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu

Weights = dict[str, Tensor]
POOLING = (4, 2, 1, 1)


def logits(state: Weights, images: Tensor, outer_heads: int, inner_heads: int) -> Tensor:
    """Heads are those of the first stage; they grow with the widths."""
    state = {name: tensor.double() for name, tensor in state.items()}
    x = convolution(state, "patch_embed.common_conv", images.double(), [(0, 2)])
    word_map = convolution(state, "patch_embed.inner_convs", x, [(0, 1)])
    patch_map = convolution(state, "patch_embed.outer_convs", x, [(0, 2), (3, 2), (6, 1)])
    words, patches = words_in_patches(word_map), patch_map.permute(0, 2, 3, 1)  # B h w q q c and B h w d
    (h, w, d), c = patches.shape[1:], words.shape[-1]
    words = words + state["inner_pos"].view(4, 4, c)
    patches = patches + state["outer_pos"].view(1, h, w, d)
    for stage in range(4):
        if stage:
            words = merged_words(state, f"word_merges.{stage - 1}", words)
            x = layer_norm(state, f"sentence_merges.{stage - 1}.norm", patches).permute(0, 3, 1, 2)
            conv = f"sentence_merges.{stage - 1}.conv.0"
            x = conv2d(x, state[f"{conv}.weight"], state[f"{conv}.bias"], stride=2, padding=1)
            patches = x.permute(0, 2, 3, 1)
        growth = patches.shape[-1] // d
        number = 0
        while f"stages.{stage}.blocks.{number}.outer_norm1.weight" in state:
            words, patches = block(
                state,
                f"stages.{stage}.blocks.{number}",
                words,
                patches,
                state[f"stages.{stage}.relative_pos"],
                growth * outer_heads,
                growth * inner_heads,
                POOLING[stage],
            )
            number += 1
    x = layer_norm(state, "norm", patches.flatten(1, 2)).mean(dim=1)
    return linear(state, "head", x)


def convolution(state: Weights, name: str, x: Tensor, layers: list[tuple[int, int]]) -> Tensor:
    """Convolutions, each with BatchNorm as in evaluation and ReLU: (number of its tensors, stride)."""
    for number, stride in layers:
        conv, norm = f"{name}.{number}", f"{name}.{number + 1}"
        x = conv2d(x, state[f"{conv}.weight"], state[f"{conv}.bias"], stride=stride, padding=1)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        scale = state[f"{norm}.weight"] / (variance + 1e-5).sqrt()
        x = (x - mean[:, None, None]) * scale[:, None, None] + state[f"{norm}.bias"][:, None, None]
        x = x.clamp_min(0)
    return x


def words_in_patches(maps: Tensor) -> Tensor:
    """B c 4h 4w → B h w 4 4 c"""
    B, c, H, W = maps.shape
    words = maps.new_empty(B, H // 4, W // 4, 4, 4, c)
    for row in range(H):
        for column in range(W):
            words[:, row // 4, column // 4, row % 4, column % 4] = maps[:, :, row, column]
    return words


def merged_words(state: Weights, name: str, words: Tensor) -> Tensor:
    """Four patches become one: their 8 × 8 words are convolved alone, zeros around them."""
    words = layer_norm(state, f"{name}.norm", words)
    B, h, w = words.shape[:3]
    weight, bias = state[f"{name}.conv.0.weight"], state[f"{name}.conv.0.bias"]
    merged = words.new_empty(B, h // 2, w // 2, 4, 4, len(weight))
    for row in range(h // 2):
        for column in range(w // 2):
            upper = torch.cat([words[:, 2 * row, 2 * column], words[:, 2 * row, 2 * column + 1]], dim=2)
            lower = torch.cat(
                [words[:, 2 * row + 1, 2 * column], words[:, 2 * row + 1, 2 * column + 1]], dim=2
            )
            square = torch.cat([upper, lower], dim=1).permute(0, 3, 1, 2)  # B c 8 8
            merged[:, row, column] = conv2d(square, weight, bias, stride=2, padding=1).permute(0, 2, 3, 1)
    return merged


def block(
    state: Weights,
    name: str,
    words: Tensor,
    patches: Tensor,
    positions: Tensor,
    outer_heads: int,
    inner_heads: int,
    pooling: int,
) -> tuple[Tensor, Tensor]:
    B, h, w, d = patches.shape
    if f"{name}.proj.weight" in state:
        c = words.shape[-1]
        x = layer_norm(state, f"{name}.inner_norm1", words.reshape(B * h * w, 16 * c)).view(-1, 16, c)
        words = words + attention(state, f"{name}.inner_attn", x, x, inner_heads).view_as(words)
        x = layer_norm(state, f"{name}.inner_norm2", words.reshape(B * h * w, 16 * c)).view(-1, 16, c)
        words = words + mlp(state, f"{name}.inner_mlp", x).view_as(words)
        x = linear(
            state, f"{name}.proj", layer_norm(state, f"{name}.proj_norm1", words.reshape(B, h, w, 16 * c))
        )
        patches = patches + layer_norm(state, f"{name}.proj_norm2", x)
    x = layer_norm(state, f"{name}.outer_norm1", patches)
    seen = x
    if pooling > 1:
        means = [
            x[:, row : row + pooling, column : column + pooling].mean(dim=(1, 2))
            for row in range(0, h, pooling)
            for column in range(0, w, pooling)
        ]
        seen = layer_norm(
            state,
            f"{name}.outer_attn.norm",
            linear(state, f"{name}.outer_attn.linear", torch.stack(means, dim=1)),
        )
    x = attention(
        state, f"{name}.outer_attn", x.reshape(B, -1, d), seen.reshape(B, -1, d), outer_heads, positions
    )
    patches = patches + x.view_as(patches)
    x = layer_norm(state, f"{name}.outer_norm2", patches)
    return words, patches + mlp(state, f"{name}.outer_mlp", x)


def attention(
    state: Weights, name: str, x: Tensor, seen: Tensor, heads: int, positions: Tensor | None = None
) -> Tensor:
    """x: S L D looks at `seen`: S K D; head by head"""
    D = x.shape[-1]
    q, k, v = linear(state, f"{name}.q", x), *linear(state, f"{name}.kv", seen).split(D, dim=-1)
    found = []
    for head, part in enumerate(torch.arange(D).split(D // heads)):
        scores = q[..., part] @ k[..., part].transpose(1, 2) / (D // heads) ** 0.5
        if positions is not None:
            scores = scores + positions[0, head]
        share = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
        found.append(share @ v[..., part])
    return linear(state, f"{name}.proj", torch.cat(found, dim=-1))


def mlp(state: Weights, name: str, x: Tensor) -> Tensor:
    return linear(state, f"{name}.fc2", gelu(linear(state, f"{name}.fc1", x)))


def linear(state: Weights, name: str, x: Tensor) -> Tensor:
    x = x @ state[f"{name}.weight"].T
    return x + state[f"{name}.bias"] if f"{name}.bias" in state else x


def layer_norm(state: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    normed = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return normed * state[f"{name}.weight"] + state[f"{name}.bias"]
