"""The TNT block (Eqs. 6–11): a transformer among the words of a patch inside a transformer among patches.

B images of n patches, d wide, of m words, c wide. In a transformer block: S sequences, L tokens, D wide.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnt.attention import Attention
from tnt.config import TNTConfig
from tnt.embed import WordsToPatch


class MLP(nn.Module):
    """Eq. 2 with GELU."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim)
        self.fc2 = nn.Linear(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        # Without autograd nobody reads `hidden` again; on a CPU a second buffer of its size costs as much as
        # the GEMM.
        hidden = F.gelu(hidden) if torch.is_grad_enabled() else torch.ops.aten.gelu_(hidden)
        return self.fc2(hidden)


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
    """Eqs. 6–7 for words and 9–10 for patches, with stochastic depth."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int, drop_path: float, gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, mlp_ratio)
        self.gate = Gate(dim) if gated else nn.Identity()
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._drop(self.attn(self.norm1(x)))
        return x + self._drop(self.gate(self.mlp(self.norm2(x))))

    def drops(self) -> bool:
        return self.training and self.drop_path > 0

    def kept(self, sequences: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """S, 1, 1: 0 for sequences without a residual; others scale it so that its expectation stays."""
        keep = 1 - self.drop_path
        return torch.empty(sequences, 1, 1, dtype=dtype, device=device).bernoulli_(keep) / keep

    def _drop(self, residual: Tensor) -> Tensor:
        if not self.drops():
            return residual
        return residual * self.kept(residual.shape[0], residual.dtype, residual.device)


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

    def forward(self, words: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """B·n, m, c and B, 1+n, d → the same"""
        if self.fused and not torch.compiler.is_exporting():
            from tnt.fused.block import runs_on, words_to_patches

            if runs_on(words):
                words, patches = words_to_patches(self, words, patches)
                return words, self.outer(patches)
        words = self.inner(words)
        enriched = patches[:, 1:] + self.to_patch(words, batch=patches.shape[0])
        return words, self.outer(torch.cat([patches[:, :1], enriched], dim=1))
