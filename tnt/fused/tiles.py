"""How much a program holds at a time: powers of two of at least 16, as the tensor cores want them."""

from __future__ import annotations

from dataclasses import dataclass

from tnt.config import TNTConfig

MOST_WORDS = 64  # a patch's scores must fit
MOST_WIDTH = 128


@dataclass(frozen=True)
class Tile:
    """R words (whole patches), C wide; heads E wide; J hidden units of the MLP; warps of 32 threads."""

    R: int
    C: int
    E: int
    J: int
    warps: int


def power(least: int) -> int:
    """The power of two, 16 or more, that has room for `least`."""
    return max(16, 1 << (least - 1).bit_length())


def forward_tile(words: int, width: int, heads: int) -> Tile:
    C = power(width)
    R = power(words)
    # One warp works alone, without waiting for others; a row of scores is no longer than a patch then.
    warps = 1 if C <= 32 and R == 16 else 4
    return Tile(R if warps == 1 else max(R, 32), C, power(width // heads), 32, warps)


def backward_tile(words: int, width: int, heads: int) -> Tile:
    """Larger: the weights' gradients are added up once a tile."""
    C = power(width)
    return Tile(max(power(words), 64 if C <= 64 else 32), C, power(width // heads), 32, 4 if C <= 32 else 8)


def norm_rows(width: int) -> int:
    """Rows of a LayerNorm at a time."""
    return max(1, 2048 // power(width))


def misfit(config: TNTConfig) -> str:
    """Why the kernels cannot compute this network's inner blocks; "" where they can."""
    if config.se in ("inner", "both"):
        return f"the inner block has a gate (se={config.se})"
    if config.words > MOST_WORDS:
        return f"a patch has {config.words} words, more than {MOST_WORDS}"
    if config.c > MOST_WIDTH:
        return f"words are {config.c} wide, more than {MOST_WIDTH}"
    return ""
