"""From pixels to words (Eqs. 4–5), from words to patches (Eq. 8), and the positions of both.

B images, C channels of height H and width W; n patches of m words, d and c wide; P the patch's edge,
q = √m words along it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WordStem(nn.Module):
    """A 7×7 convolution whose stride is the word's edge, so that each output pixel is a word.

    The official network cuts patches out first, so that the convolution sees zeros beyond a patch's edge; the
    legacy one convolves the whole image, so that words at an edge see the neighbouring patch.
    """

    def __init__(
        self, channels: int, word_dim: int, patch_size: int, word_edge: int, patches_first: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, word_dim, kernel_size=7, stride=word_edge, padding=3)
        self.patch_size = patch_size
        self.word_edge = word_edge
        self.patches_first = patches_first

    def forward(self, images: Tensor) -> Tensor:
        """B, C, H, W → B·n, m, c"""
        if self.patches_first:
            if images.is_cuda:
                return self.as_product(_cut(images, self.patch_size).flatten(0, 2))
            return convolve_squares(self.conv, images, self.patch_size)
        return words_of_map(self.conv(images), self.patch_size // self.word_edge)

    def as_product(self, patches: Tensor) -> Tensor:
        """B·n, C, P, P → B·n, m, c: within a patch the convolution is one matrix, and on a GPU that is faster
        by an estimate (benchmarks/LOG.md); on a CPU it is slower."""
        values = patches[0].numel()
        one_each = torch.eye(values, dtype=patches.dtype, device=patches.device)
        conv = self.conv
        assert conv.bias is not None
        one_each = one_each.view(values, *patches.shape[1:])
        matrix = F.conv2d(one_each, conv.weight, None, conv.stride, conv.padding)
        matrix = matrix.flatten(2).transpose(1, 2)  # C·P·P, m, c
        x = patches.flatten(1) @ matrix.flatten(1)
        return x.unflatten(1, matrix.shape[1:]) + conv.bias.to(x.dtype)


class WordsToPatch(nn.Module):
    """Vec(words) W of Eq. 8, with the norms that the published code has around it and the paper has not.

    Official: LayerNorm(m·c) → Linear → LayerNorm(d). Legacy blocks: LayerNorm(c) of each word → Linear.
    """

    def __init__(
        self, words: int, word_dim: int, patch_dim: int, *, bias: bool, norm_each_word: bool
    ) -> None:
        super().__init__()
        self.norm_each_word = norm_each_word
        self.norm_words = nn.LayerNorm(word_dim if norm_each_word else words * word_dim)
        self.proj = nn.Linear(words * word_dim, patch_dim, bias=bias)
        self.norm_patch = nn.Identity() if norm_each_word else nn.LayerNorm(patch_dim)

    def forward(self, words: Tensor, batch: int) -> Tensor:
        """B·n, m, c → B, n, d"""
        if self.norm_each_word:
            words = self.norm_words(words)
        x = words.reshape(batch, -1, self.proj.in_features)  # B, n, m·c
        if not self.norm_each_word:
            x = self.norm_words(x)
        return self.norm_patch(self.proj(x))


def resize_patch_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """1, 1+n, d → 1, 1+h·w, d: bicubic over the square grid that was trained; the class token's stays.

    A pyramid has no class token, and n in place of 1+n; no square number is another one and 1.
    """
    edge = math.isqrt(int(positions.shape[1]))
    if (edge, edge) == grid:
        return positions
    first, rest = positions.split([positions.shape[1] - edge**2, edge**2], dim=1)
    square = rest.float().unflatten(1, (edge, edge)).permute(0, 3, 1, 2)  # 1, d, edge, edge
    resized = resize_maps(square, grid)
    return torch.cat([first, resized.flatten(2).transpose(1, 2).to(first.dtype)], dim=1)


def resize_maps(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """B, C, h, w → B, C and the grid; bicubic"""
    return F.interpolate(maps, size=grid, mode="bicubic", antialias=True, align_corners=False)


def patch_map(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """B, 1+n or n, d → B, d, h, w: each patch at its place, stride P; a class token is left out."""
    return patches[:, -grid[0] * grid[1] :].transpose(1, 2).unflatten(2, grid)


def word_map(words: Tensor, grid: tuple[int, int]) -> Tensor:
    """B, n, m, c → B, c, h·q, w·q: each word at its place, stride p′"""
    B, _, m, c = words.shape
    (h, w), q = grid, math.isqrt(int(m))
    placed = words.reshape(B, h, w, q, q, c).permute(0, 5, 1, 3, 2, 4)  # B, c, h, q, w, q
    return placed.reshape(B, c, h * q, w * q)


def words_of_map(maps: Tensor, edge: int) -> Tensor:
    """B, c, h·q, w·q → B·n, m, c: the words of squares of q·q"""
    return _cut(maps, edge).flatten(4).flatten(0, 2).transpose(1, 2).contiguous()


def convolve_squares(conv: nn.Module, maps: Tensor, edge: int) -> Tensor:
    """B, C, H, W → B·n, m, c: each square of the maps is convolved by itself, with zeros around it"""
    x = conv(_cut(maps, edge).flatten(0, 2))  # B·n, c, q, q
    return x.flatten(2).transpose(1, 2).contiguous()


def _cut(images: Tensor, edge: int) -> Tensor:
    """B, C, H, W → B, H/edge, W/edge, C, edge, edge"""
    B, C, H, W = images.shape
    return images.reshape(B, C, H // edge, edge, W // edge, edge).permute(0, 2, 4, 1, 3, 5)
