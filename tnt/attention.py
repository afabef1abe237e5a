"""Multi-head self-attention (Eq. 1), the same for words inside a patch and for patches inside an image.

B sequences, L tokens each, D wide, h heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NARROW = 32  # channels of a head
MOST_SEQUENCES = 65_535  # of a GPU's kernel for attention: 128 images of 384² pixels have more patches


class Attention(nn.Module):
    """Queries, keys and values come out of one GEMM; they have no bias, in every published TNT."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, L, D = x.shape
        q, k, v = self._heads(x)
        x = attend(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(B, L, D))

    def weights(self, x: Tensor, query: int) -> Tensor:
        """B, L, D → B, h, L: how much one token looks at each, by head"""
        q, k, _ = self._heads(x)
        scores = (q[:, :, query : query + 1] @ k.transpose(-1, -2)).squeeze(2)
        return (scores * q.shape[-1] ** -0.5).softmax(dim=-1)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """B, L, D → queries, keys and values, each B, h, L, D/h"""
        B, L, D = x.shape
        qkv = self.qkv(x).view(B, L, 3, self.heads, D // self.heads)  # B, L, 3, h, D/h
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax attention of every head; each B, h, L, D/h; keys and values may be fewer. bias: 1, h, L, L'"""
    if q.is_cpu and q.dtype == torch.bfloat16:
        return _attend_bf16_on_cpu(q, k, v, bias)
    if bias is not None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
    # An exported network would be bound to fewer.
    if not torch.compiler.is_exporting() and q.shape[0] > MOST_SEQUENCES:
        parts = zip(*(each.split(MOST_SEQUENCES) for each in (q, k, v)), strict=True)
        return torch.cat([F.scaled_dot_product_attention(*part) for part in parts])
    return F.scaled_dot_product_attention(q, k, v)


def _attend_bf16_on_cpu(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """PyTorch's kernel is slower than its float32 one where heads are narrow, than GEMMs where gradients are
    asked for (benchmarks/LOG.md)."""
    dtype = q.dtype
    with torch.autocast("cpu", enabled=False):
        if q.shape[-1] < NARROW:
            q, k, v = q.float(), k.float(), v.float()
        if q.requires_grad:
            scores = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
            x = (scores if bias is None else scores + bias.to(q.dtype)).softmax(dim=-1) @ v
        else:
            mask = None if bias is None else bias.to(q.dtype)
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return x.to(dtype)
