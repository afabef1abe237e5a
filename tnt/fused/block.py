"""From words to words and to patches, with the kernels in place of the modules whose weights they take."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tnt.fused.ops import enrich, inner

if TYPE_CHECKING:
    from tnt.block import TNTBlock, TransformerBlock

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton without a GPU, slowly


def runs_on(words: Tensor) -> bool:
    return words.is_cuda or INTERPRETED


def words_to_patches(block: TNTBlock, words: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
    """B·n, m, c and B, 1+n, d → the words after the inner block, the patches with them added (Eqs. 6–8)"""
    dtype = _compute_type(words)
    to_patch, layer = block.to_patch, block.inner
    words, normed = inner(
        words,
        _kept(layer, words, dtype),
        _weights(layer),
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


def _kept(layer: TransformerBlock, words: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The factors of both residuals, drawn as the plain path draws them."""
    if not layer.drops():
        return None
    drawn = [layer.kept(words.shape[0], dtype, words.device) for _ in range(2)]
    return torch.stack(drawn).flatten(1).to(torch.promote_types(dtype, torch.float32))


def _weights(layer: TransformerBlock) -> list[Tensor]:
    attn, mlp = layer.attn, layer.mlp
    return [
        layer.norm1.weight, layer.norm1.bias, attn.qkv.weight, attn.proj.weight, attn.proj.bias,
        layer.norm2.weight, layer.norm2.bias, mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias,
    ]  # fmt: skip
