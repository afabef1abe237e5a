"""Eqs. 14–18 of the paper, and a whole network's multiply-adds. Needs no torch.

"FLOPs" in the paper are multiply-adds; so they are here. Letters as in the paper: n patches of m words, d and
c wide, MLP ratio r.
"""

from tnt.complexity.pyramid import pyramid_macs
from tnt.config import PyramidConfig, TNTConfig


def eq14_flops(n: int, d: int, d_k: int, d_v: int, r: float) -> float:
    """Eq. 14: a transformer block over n tokens; projections, attention, MLP."""
    return 2 * n * d * (d_k + d_v) + n**2 * (d_k + d_v) + 2 * n * d * d * r


def eq15_flops(n: int, d: int) -> int:
    """Eq. 15: Eq. 14 with d_k = d_v = d and r = 4."""
    return 2 * n * d * (6 * d + n)


def eq16_params(d: int) -> int:
    """Eq. 16: weights of a transformer block with r = 4."""
    return 12 * d * d


def eq17_flops(n: int, m: int, c: int, d: int) -> int:
    """Eq. 17: a TNT block; inner transformer, linear layer, outer transformer. No class token."""
    return 2 * n * m * c * (6 * c + m) + n * m * c * d + 2 * n * d * (6 * d + n)


def eq18_params(m: int, c: int, d: int) -> int:
    """Eq. 18: weights of a TNT block."""
    return 12 * c * c + m * c * d + 12 * d * d


def model_macs(config: TNTConfig | PyramidConfig) -> int:
    """The whole network, matrix products and convolution, exactly: what Eq. 17 leaves out is added.

    That is the stem, the first projection, the class token's row in the outer block, SE and the head.
    """
    if isinstance(config, PyramidConfig):
        return pyramid_macs(config)
    n, m, c, d, r = config.patches, config.words, config.c, config.patch_dim, config.mlp_ratio
    stem = n * m * c * 7 * 7 * config.channels + n * m * c * d
    inner = n * eq14_flops(m, c, c, c, r)
    outer = eq14_flops(n + 1, d, d, d, r)
    gates = {"none": 0, "inner": n * 2 * c * (c // 4), "outer": 2 * d * (d // 4)}
    gates["both"] = gates["inner"] + gates["outer"]
    block = inner + n * m * c * d + outer + gates[config.se]
    return int(stem + config.depth * block + d * config.classes)
