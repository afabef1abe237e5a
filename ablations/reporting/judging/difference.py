"""A difference with its standard error: its interval, its tests, and the gap that it could have shown.

`scipy.special` has the same distributions as `scipy.stats` and is imported in a third of the time.
"""

import math
from dataclasses import dataclass

LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """In percent points; t-distributed."""

    value: float
    error: float
    freedom: float  # degrees of; infinite where the error is known

    @property
    def half(self) -> float:
        """Of the 95 % interval's width."""
        return quantile(1 - LEVEL / 2, self.freedom) * self.error

    def p(self) -> float:
        """Of no difference, two-sided."""
        return min(1.0, 2 * self._below(-abs(self.value)))

    def p_beyond(self, margin: float) -> float:
        """Of a difference of at least the margin, either way: the larger of two one-sided tests."""
        return self._below(abs(self.value) - margin)

    def could_see(self, level: float = LEVEL, power: float = POWER) -> float:
        """The smallest true difference that is found in so many of such experiments, tested two-sided."""
        reach = quantile(1 - level / 2, self.freedom) + quantile(power, self.freedom)
        return reach * self.error

    def _below(self, value: float) -> float:
        from scipy.special import stdtr

        return float(stdtr(self.freedom, value / self.error))


def normal(value: float) -> float:
    return math.erfc(-value / math.sqrt(2)) / 2


def quantile(p: float, freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, p))


def difference(value: float, runs: float, freedom: float, others: float) -> Difference:
    """With the variance of runs, estimated with so many degrees of freedom, and that of all else.

    The degrees of freedom of their sum are Satterthwaite's.
    """
    whole = runs + others
    return Difference(value, math.sqrt(whole), freedom * (whole / runs) ** 2)
