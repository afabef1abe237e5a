"""A block of a PyramidTNT: TNT's, with fewer keys than patches, learned relative positions, no class token.

B images of n = h·w patches, d wide, of m words, c wide; k heads; p the edge of a square of pooled patches.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tnt.attention import attend
from tnt.block import TransformerBlock
from tnt.config import StageConfig
from tnt.embed import WordsToPatch, patch_map


class PooledAttention(nn.Module):
    """Keys and values of means of p×p patches; each head adds what it learned for each pair of places."""

    def __init__(self, dim: int, heads: int, pooling: int) -> None:
        super().__init__()
        self.heads, self.pooling = heads, pooling
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        if pooling > 1:
            self.pool_proj = nn.Linear(dim, dim)
            self.pool_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, bias: Tensor, grid: tuple[int, int]) -> Tensor:
        """B, n, d → B, n, d; bias: 1, k, n, n/p²"""
        q, k, v = self._heads(x, grid)
        return self.proj(attend(q, k, v, bias).transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, bias: Tensor, grid: tuple[int, int], query: int) -> Tensor:
        """B, n, d → B, k, n: how much one patch looks at each, by head; the patches of a square share"""
        q, k, _ = self._heads(x, grid)
        scores = (q[:, :, query : query + 1] @ k.transpose(-1, -2)).squeeze(2)
        shares = (scores * q.shape[-1] ** -0.5 + bias[:, :, query]).softmax(dim=-1)  # B, k, n/p²
        p, (h, w) = self.pooling, grid
        squares = shares.unflatten(2, (h // p, w // p)) / p**2
        return squares.repeat_interleave(p, dim=2).repeat_interleave(p, dim=3).flatten(2)

    def _heads(self, x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # B, k, n, d/k
        if self.pooling > 1:
            x = F.avg_pool2d(patch_map(x, grid), self.pooling)  # B, d, h/p, w/p
            x = self.pool_norm(self.pool_proj(x.flatten(2).transpose(1, 2)))
        k, v = self.kv(x).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v


class WholePatchNorm(nn.LayerNorm):
    """LayerNorm over all words of a patch together: m·c values."""

    def forward(self, words: Tensor) -> Tensor:
        """S, m, c → S, m, c"""
        return super().forward(words.flatten(1)).view_as(words)


class PyramidBlock(nn.Module):
    """(words, patches) → (words, patches). Only the first blocks of a stage have an inner transformer."""

    def __init__(self, stage: StageConfig, words: int, mlp_ratio: int, drop_path: float, inner: bool) -> None:
        super().__init__()
        self.has_words = inner
        if inner:
            self.inner = TransformerBlock(stage.c, stage.inner_heads, mlp_ratio, drop_path)
            self.inner.norm1, self.inner.norm2 = (WholePatchNorm(words * stage.c) for _ in range(2))
            self.to_patch = WordsToPatch(words, stage.c, stage.d, bias=False, norm_each_word=False)
        attention = PooledAttention(stage.d, stage.outer_heads, stage.pooling)
        self.outer = TransformerBlock(stage.d, stage.outer_heads, mlp_ratio, drop_path, attn=attention)

    def forward(
        self, words: Tensor, patches: Tensor, bias: Tensor, grid: tuple[int, int], drawn: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """B·n, m, c and B, n, d → the same; drawn: 2, B, 1+n, the first for the outer block's paths"""
        of_patches, of_words = (None, None) if drawn is None else (drawn[:, :, 0], drawn[:, :, 1:].flatten(1))
        if self.has_words:
            words = self.inner(words, of_words)
            patches = patches + self.to_patch(words, batch=patches.shape[0])
        return words, self.outer(patches, of_patches, bias, grid)
