"""From pixels to the words and patches of the first stage, and from one stage to the next.

B images of n = h·w patches of m = q·q words, d and c wide.
"""

from __future__ import annotations

from torch import Tensor, nn

from tnt.embed import convolve_squares, patch_map, resize_maps, word_map, words_of_map

WORDS = 4  # q, of a patch in every stage


class ConvStem(nn.Module):
    """Convolutions of 3×3 over the whole image: to words at stride 2, and on to patches at stride 8."""

    def __init__(self, channels: int, c: int, d: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(*_convolution(channels, 2 * c, stride=2))
        self.words = nn.Sequential(*_convolution(2 * c, c, stride=1))
        self.patches = nn.Sequential(
            *_convolution(2 * c, 4 * c, stride=2),
            *_convolution(4 * c, 8 * c, stride=2),
            *_convolution(8 * c, d, stride=1),
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """B, C, H, W → words B·n, m, c and patches B, n, d"""
        x = self.shared(images)  # B, 2c, H/2, W/2
        words = words_of_map(self.words(x), WORDS)
        return words, self.patches(x).flatten(2).transpose(1, 2)


class WordAggregation(nn.Module):
    """The words of 2×2 patches become those of one, by a convolution that sees no word of other patches."""

    def __init__(self, c_before: int, c: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c_before)
        self.conv = nn.Conv2d(c_before, c, kernel_size=3, stride=2, padding=1)

    def forward(self, words: Tensor, grid: tuple[int, int]) -> Tensor:
        """B·n, m, c → B·n/4, m, c; the grid is that of before"""
        normed = self.norm(words).unflatten(0, (-1, grid[0] * grid[1]))  # B, n, m, c
        merged = convolve_squares(self.conv, word_map(normed, grid), 2 * WORDS)
        return merged.to(words.dtype)  # under autocast, residuals are added in fp32


class PatchAggregation(nn.Module):
    """A convolution of stride 2 over all patches."""

    def __init__(self, d_before: int, d: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_before)
        self.conv = nn.Conv2d(d_before, d, kernel_size=3, stride=2, padding=1)

    def forward(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        """B, n, d → B, n/4, d"""
        merged = self.conv(patch_map(self.norm(patches), grid))
        return merged.flatten(2).transpose(1, 2).to(patches.dtype)


def resize_relative_positions(
    positions: Tensor, edges: tuple[int, int], grid: tuple[int, int], pooling: int
) -> Tensor:
    """1, k, n, n/pooling² → the same for the patches of a grid; bicubic, first over keys, then over queries.

    `edges` are those of the square grids that were trained: of queries and of keys.
    """
    (queries, keys), (h, w) = edges, grid
    if (queries, queries) == grid:
        return positions
    small = h // pooling, w // pooling
    k, dtype = positions.shape[1], positions.dtype
    x = resize_maps(positions.float().reshape(1, -1, keys, keys), small)  # 1, k·n, h/pooling, w/pooling
    x = x.reshape(k, queries**2, -1).transpose(1, 2)  # k, keys, n
    x = resize_maps(x.reshape(1, -1, queries, queries), grid)
    return x.reshape(1, k, -1, h * w).transpose(2, 3).to(dtype)


def _convolution(before: int, after: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1)
    return [conv, nn.BatchNorm2d(after), nn.ReLU()]
