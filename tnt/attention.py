"""Multi-head self-attention (Eq. 1), the same for words inside a patch and for patches inside an image.

B sequences, L tokens each, D wide, h heads.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Queries, keys and values come out of one GEMM; they have no bias, in every published TNT."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        B, L, D = x.shape
        qkv = self.qkv(x).view(B, L, 3, self.heads, D // self.heads)  # B, L, 3, h, D/h
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each B, h, L, D/h
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(B, L, D))
