"""Parameters and multiply-adds of a PyramidTNT by formula. Needs no torch.

Letters as in `formulas.py`, of each stage; k keys of the outer attention, fewer than n where they are pooled.
"""

from itertools import pairwise

from tnt.config import PyramidConfig, StageConfig


def pyramid_macs(config: PyramidConfig) -> int:
    """Matrix products and convolutions, exactly."""
    m, r, stages = config.words, config.mlp_ratio, config.stages
    total = _stem(config) + stages[-1].d * config.classes
    for stage in stages:
        n, k, c, d = stage.edge**2, stage.keys**2, stage.c, stage.d
        inner = n * m * (4 * c * c + 2 * m * c + 2 * c * c * r) + n * m * c * d
        outer = 2 * n * d * d + 2 * k * d * d + 2 * n * k * d + 2 * n * d * d * r
        outer += k * d * d if stage.pooling > 1 else 0
        total += stage.with_words * inner + stage.blocks * outer
    for before, stage in pairwise(stages):
        total += 9 * stage.edge**2 * (m * before.c * stage.c + before.d * stage.d)
    return total


def pyramid_params(config: PyramidConfig) -> int:
    """Of them, those of BatchNorm's running means are none."""
    m, stages = config.words, config.stages
    first, last = stages[0], stages[-1]
    total = first.edge**2 * first.d + m * first.c  # positions
    total += sum(9 * before * after + 3 * after for before, after, _ in _convolutions(config))
    for stage in stages:
        total += stage.outer_heads * stage.edge**2 * stage.keys**2  # relative positions
        total += sum(_block(stage, config, inner=number < stage.with_words) for number in range(stage.blocks))
    for one, other in pairwise(stages):
        total += sum(
            9 * before * after + after + 2 * before for before, after in ((one.c, other.c), (one.d, other.d))
        )
    return total + 2 * last.d + (last.d + 1) * config.classes


def _block(stage: StageConfig, config: PyramidConfig, inner: bool) -> int:
    m, c, d, r = config.words, stage.c, stage.d, config.mlp_ratio
    outer = 4 * d + _transformer(d, r) + (d * d + 3 * d if stage.pooling > 1 else 0)
    words = 4 * m * c + _transformer(c, r) + 2 * m * c + m * c * d + 2 * d
    return outer + (words if inner else 0)


def _transformer(width: int, r: int) -> int:
    """Attention and MLP, without norms."""
    return 4 * width * width + width + 2 * r * width * width + r * width + width


def _stem(config: PyramidConfig) -> int:
    return sum(
        9 * before * after * (config.image_size // stride) ** 2
        for before, after, stride in _convolutions(config)
    )


def _convolutions(config: PyramidConfig) -> list[tuple[int, int, int]]:
    """Of the stem: channels before and after, and the stride of what comes out."""
    c, d = config.stages[0].c, config.stages[0].d
    return [(config.channels, 2 * c, 2), (2 * c, c, 2), (2 * c, 4 * c, 4), (4 * c, 8 * c, 8), (8 * c, d, 8)]
