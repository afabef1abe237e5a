"""The TNT block (Eqs. 6–11): a transformer among the words of a patch inside a transformer among patches.

B images of n patches, d wide, of m words, c wide. In a transformer block: S sequences, L tokens, D wide.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnt.attention import Attention
from tnt.config import TNTConfig
from tnt.embed import WordsToPatch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton's kernels without a GPU, slowly
WORD = 0xFFFFFFFF


def path_draws(keys: Tensor, places: Tensor) -> Tensor:
    """A number of 32 bits, as int64, for each pair of a key and a place (32 bits), which are broadcast.

    It is a function of the two alone, and the same on every device: no product here leaves 63 bits.
    """
    return _mixed(_mixed(places ^ _mixed(keys & WORD)) ^ (keys >> 32 & WORD))


def _mixed(x: Tensor) -> Tensor:
    """A bit changes each other with a chance of one half (constants of C. Wellons' hash-prospector)."""
    x = (x ^ x >> 16) * 0x21F0AAAD & WORD
    x = (x ^ x >> 15) * 0x735A2D97 & WORD
    return x ^ x >> 15


class MLP(nn.Module):
    """Eq. 2 with GELU."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.fc2 = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        # A second buffer of its size costs up to a quarter of a network's time on a CPU (benchmarks/LOG.md).
        again = torch.is_grad_enabled() or _may_keep_output(self.fc1)
        hidden = F.gelu(hidden) if again else torch.ops.aten.gelu_(hidden)
        return self.fc2(hidden)


def _may_keep_output(layer: nn.Module) -> bool:
    """Hooks may keep what a layer returns, and layers of another kind too."""
    hooked = layer._forward_hooks or torch.nn.modules.module._global_forward_hooks
    return bool(hooked) or type(layer) is not nn.Linear


class Gate(nn.Module):
    """Squeeze-and-excitation of §2.4 as the official code has it: x + a·x, a from the mean over tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, dim // 4)
        self.fc2 = nn.Linear(dim // 4, dim)

    def forward(self, x: Tensor) -> Tensor:
        a = self.norm(x.mean(dim=1, keepdim=True))  # S, 1, D
        a = torch.tanh(self.fc2(F.relu(self.fc1(a))))
        return x + a * x


class TransformerBlock(nn.Module):
    """Eqs. 6–7 for words and 9–10 for patches, with stochastic depth.

    `drawn` (2, S) holds a number of 32 bits for each residual of each sequence; it is not read where nothing
    is dropped. A pyramid brings its own attention, and what that wants beside the tokens.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: int,
        drop_path: float,
        gated: bool = False,
        attn: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attn or Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, mlp_ratio)
        self.gate = Gate(dim) if gated else nn.Identity()
        self.drop_path = drop_path

    def forward(self, x: Tensor, drawn: Tensor | None = None, *beside: Any) -> Tensor:
        if not self.drops():
            x = x + self.attn(self.norm1(x), *beside)
            return x + self.gate(self.mlp(self.norm2(x)))
        first, second = self.kept(drawn, _compute_type(x))[..., None, None].unbind(0)  # S, 1, 1
        x = x + self.attn(self.norm1(x), *beside) * first
        return x + self.gate(self.mlp(self.norm2(x))) * second

    def drops(self) -> bool:
        return self.training and self.drop_path > 0

    def kept(self, drawn: Tensor | None, dtype: torch.dtype) -> Tensor:
        """2, S: 0 for sequences without a residual; others scale it so that its expectation stays."""
        assert drawn is not None, "in training, a block that drops paths needs numbers drawn for them"
        return (drawn >= round(self.drop_path * 2**32)).to(dtype) / (1 - self.drop_path)


class TNTBlock(nn.Module):
    """Eq. 11: (words, patches) → (words, patches). The class token, patch 0, has no words."""

    def __init__(self, config: TNTConfig, drop_path: float) -> None:
        super().__init__()
        c, d, legacy = config.c, config.patch_dim, config.form == "legacy"
        gates = {"none": (False, False), "inner": (True, False), "outer": (False, True), "both": (True, True)}
        inner_gated, outer_gated = gates[config.se]
        self.inner = TransformerBlock(c, config.inner_heads, config.mlp_ratio, drop_path, inner_gated)
        self.to_patch = WordsToPatch(config.words, c, d, bias=legacy, norm_each_word=legacy)
        self.outer = TransformerBlock(d, config.outer_heads, config.mlp_ratio, drop_path, outer_gated)
        self.fused = False  # see TNT.set_kernels

    def forward(self, words: Tensor, patches: Tensor, drawn: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """B·n, m, c and B, 1+n, d → the same; drawn: 2, B, 1+n, the first for the outer block's paths"""
        kernels = self.fused and (words.is_cuda or INTERPRETED) and not torch.compiler.is_exporting()
        of_patches, of_words = (None, None) if drawn is None else (drawn[:, :, 0], drawn[:, :, 1:].flatten(1))
        words, patches = (self.inner_fused if kernels else self.inner_plain)(words, patches, of_words)
        return words, self.outer(patches, of_patches)

    def inner_plain(
        self, words: Tensor, patches: Tensor, drawn: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The words after the inner block, and the patches with them added (Eqs. 6–8)."""
        words = self.inner(words, drawn)
        enriched = patches[:, 1:] + self.to_patch(words, batch=patches.shape[0])
        return words, torch.cat([patches[:, :1], enriched], dim=1)

    def inner_fused(
        self, words: Tensor, patches: Tensor, drawn: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same by the kernels of `tnt.fused`, with the weights of the modules that they replace."""
        from tnt.fused.ops import enrich, inner

        dtype, layer, to_patch = _compute_type(words), self.inner, self.to_patch
        assert isinstance(layer.attn, Attention)
        kept = None
        if layer.drops():
            kept = layer.kept(drawn, dtype).to(torch.promote_types(dtype, torch.float32))
        words, normed = inner(
            words,
            kept,
            _kernel_weights(layer),
            to_patch.norm_words.weight,
            to_patch.norm_words.bias,
            layer.attn.heads,
            dtype,
        )
        update = to_patch.proj(normed.view(patches.shape[0], -1, to_patch.proj.in_features))  # B, n, d
        norm = to_patch.norm_patch
        if isinstance(norm, nn.LayerNorm):
            return words, enrich(patches, update, norm.weight, norm.bias)
        return words, torch.cat([patches[:, :1], patches[:, 1:] + update], dim=1)


def _compute_type(words: Tensor) -> torch.dtype:
    kind = words.device.type
    if torch.is_autocast_enabled(kind) and words.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return words.dtype


def _kernel_weights(layer: TransformerBlock) -> list[Tensor]:
    attn, mlp = layer.attn, layer.mlp
    assert isinstance(attn, Attention)
    return [
        layer.norm1.weight, layer.norm1.bias, attn.qkv.weight, attn.proj.weight, attn.proj.bias,
        layer.norm2.weight, layer.norm2.bias, mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias,
    ]  # fmt: skip
