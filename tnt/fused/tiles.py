"""How much a program holds at a time: powers of two of at least 16, as the tensor cores want them."""

from __future__ import annotations

from dataclasses import dataclass

from tnt.config import TNTConfig

MOST_WORDS = 64  # a patch's scores must fit
MOST_WIDTH = 128
MOST_VALUES = 4096  # of a tile; of twice as many, backward in fp32 wants 426 KB of a Hopper's 227 KB


@dataclass(frozen=True)
class Tile:
    """R words (whole patches), C wide; heads E wide; J hidden units of the MLP at a time.

    warps: of 32 threads; stages: how many of a loop's weights are under way at once.
    """

    R: int
    C: int
    E: int
    J: int
    warps: int
    stages: int


def tile_for(words: int, width: int, heads: int) -> Tile:
    """Chosen by the instructions and registers of what sm_90 gets (benchmarks/network/compiled.py).

    A warp has 32 words of up to 32: fewer, and fetching weights weighs more; more, and registers spill. Where
    patches allow it a warp works alone, and waits for no other.
    """
    R, C = max(32, power(words)), power(width)
    return Tile(R, C, power(width // heads), 32, R * max(C, 32) // 1024, 2 if C <= 64 else 1)


def power(least: int) -> int:
    """The power of two, 16 or more, that has room for `least`."""
    return max(16, 1 << (least - 1).bit_length())


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
    tile = tile_for(config.words, config.c, config.inner_heads)
    if tile.R * tile.C > MOST_VALUES:
        return f"{config.words} words of {config.c} values are more than a GPU's shared memory holds in fp32"
    return ""
