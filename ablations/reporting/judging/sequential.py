"""Runs that are added after a look at the results, as `until=decided` does it.

Who looks several times has several chances to be wrong. So each look has its share of the error, and these
add up to 1: a pair's p at a look is divided by the look's share (Bonferroni), which holds whatever the looks
have in common. The last has most, as nothing is lost there that could be found later.
"""

import math
from collections.abc import Mapping, Sequence

from ablations.reporting.judging.difference import LEVEL, difference, normal, quantile
from ablations.reporting.judging.noise import SeedNoise
from ablations.reporting.judging.verdicts import SAME_ROWS, Question
from pipeline.runs.records import Record

SHARES = {3: 0.1, 5: 0.15, 7: 0.2, 10: 0.55}  # of the error: of the look at so many runs of both rows
LAST = max(SHARES)
HOPELESS = 0.1  # a pair is given up where it would be decided by the last look in fewer cases


def first(records: Sequence[Record], runs: int) -> list[Record]:
    """Those that ended first: what a look at so many runs saw, whatever was added later."""
    return sorted(records, key=lambda record: (record.ended, record.seed))[:runs]


def looks_taken(one: int, other: int) -> list[int]:
    """At a pair of rows with so many runs."""
    return [runs for runs in SHARES if runs <= min(one, other)]


def next_look(one: int, other: int) -> int | None:
    return next((runs for runs in SHARES if runs > min(one, other)), None)


def chance(
    asked: Question, noise: SeedNoise, runs: tuple[int, int], of_images: float, open_pairs: int
) -> float:
    """That the last look decides a pair, where all that is known of its difference is what was seen.

    The means of more runs scatter around today's, by the variance that those runs take away.
    """
    if min(runs) >= LAST:
        return 0.0
    last = tuple(max(LAST, each) for each in runs)
    freedom = noise.freedom + sum(last) - sum(runs)
    then = difference(0.0, noise.s**2 * (1 / last[0] + 1 / last[1]), freedom, of_images**2)
    spread = noise.s * math.sqrt(1 / runs[0] + 1 / runs[1] - 1 / last[0] - 1 / last[1])
    level, value = LEVEL * SHARES[LAST] / open_pairs, asked.difference.value

    def within(bound: float) -> float:
        return max(0.0, normal((bound - value) / spread) - normal((-bound - value) / spread))

    found = 1 - within(quantile(1 - level / 2, then.freedom) * then.error)
    if asked.paper == 0:
        found += within(SAME_ROWS - quantile(1 - level, then.freedom) * then.error)
    return min(1.0, found)


def wanted(looks: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """How many runs each row needs, for the next look at each pair that goes on."""
    found: dict[str, int] = {}
    for pair, runs in looks.items():
        for cell in pair:
            found[cell] = max(found.get(cell, 0), runs)
    return found
