"""RandAugment's policy as timm defines it: which operations are applied to a view, with which arguments.

Cubuk et al., "RandAugment" (arXiv 1909.13719), in timm's variant: each of n operations, drawn with
replacement from 15, is applied with probability p; its magnitude is drawn around m and clipped to 0 … 10.
(In torchvision and DALI operations are always applied, which is another recipe.)
"""

import functools
import math
import re
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UserError, unknown_name
from tnt.untrusted.reading import number

# The order is timm's. In the "increasing" set the effect of operations marked + increases with the magnitude.
OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",  # +
    "Solarize",  # +
    "SolarizeAdd",
    "Color",  # +
    "Contrast",  # +
    "Brightness",  # +
    "Sharpness",  # +
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
NOTHING = -1  # no operation in this layer
MAGNITUDES = 10.0
DRAWS_PER_LAYER = 5
RANGES = {"m": (0, 100), "n": (1, 15), "p": (0, 1), "mstd": (0, math.inf), "mmax": (0, 100), "inc": (0, 1)}


@dataclass(frozen=True)
class Policy:
    magnitude: float = 10.0
    layers: int = 2
    probability: float = 0.5
    deviation: float = 0.0  # of the magnitude's normal distribution; infinite = uniform in 0 … magnitude
    limit: float = MAGNITUDES
    increasing: bool = False

    @classmethod
    @functools.cache
    def parse(cls, text: str) -> "Policy | None":
        """timm's notation, such as rand-m9-mstd0.5-inc1; the empty string is no policy."""
        if not text:
            return None
        kind, *parts = text.split("-")
        if kind != "rand":
            raise UserError(f"randaugment {text!r}: it must begin with rand, such as rand-m9-mstd0.5-inc1")
        values: dict[str, float] = {}
        for part in parts:
            match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?|inf)", part)
            if not match:
                raise UserError(f"randaugment {text!r}: {part!r} is not a name and a number, such as m9")
            if match[1] not in RANGES:
                raise unknown_name(f"part of randaugment {text!r}", match[1], RANGES)
            least, most = RANGES[match[1]]
            where = f"randaugment {text!r}: {match[1]}"
            endless = match[2] == "inf" and most == math.inf
            values[match[1]] = most if endless else number(match[2], least, most, where)
        deviation = values.get("mstd", 0.0)
        return cls(
            magnitude=values.get("m", MAGNITUDES),
            layers=int(values.get("n", 2)),
            probability=values.get("p", 0.5),
            deviation=float("inf") if deviation > 100 else deviation,
            limit=values.get("mmax", 0) or MAGNITUDES,
            increasing=bool(values.get("inc", 0)),
        )

    def draw(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Operations int8 and their arguments float64, both [N, layers], from uniforms [N, 5 · layers]."""
        which, fires, first, second, side = np.moveaxis(u.reshape(len(u), self.layers, DRAWS_PER_LAYER), 2, 0)
        operation = (which * len(OPERATIONS)).astype(np.int8)
        if self.deviation == float("inf"):
            magnitude = first * self.magnitude
        else:
            normal = np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)
            magnitude = self.magnitude + self.deviation * normal
        level = np.clip(magnitude, 0, self.limit) / MAGNITUDES
        argument = self._arguments(operation, level, np.where(side > 0.5, -1.0, 1.0))
        operation[fires > self.probability] = NOTHING
        return operation, argument

    def _arguments(self, operation: np.ndarray, level: np.ndarray, sign: np.ndarray) -> np.ndarray:
        """The operation's own argument: degrees, bits, threshold, sum, factor, slope or shift.

        All of them are computed for each draw and one is chosen, which is faster than fifteen masks.
        """
        enhance = np.maximum(0.1, 1 + sign * (level * 0.9)) if self.increasing else level * 1.8 + 0.1
        bits = np.trunc(level * 4)
        threshold = np.minimum(256, np.trunc(level * 256))
        if self.increasing:
            bits, threshold = 4 - bits, 256 - threshold
        add = np.minimum(128, np.trunc(level * 110))
        turn, slope, shift = sign * (level * 30), sign * (level * 0.3), sign * (level * 0.45)
        nothing = np.zeros_like(level)
        return np.choose(
            operation,
            [nothing, nothing, nothing, turn, bits, threshold, add]
            + [enhance] * 4
            + [slope, slope, shift, shift],
        )
