"""Controls of the judge and of the switches, from the networks of a table and the records of its runs.

Where a row has four seeds or more, they are split into two groups, by even and odd places. Between these
there is no difference. Then one is planted: so many answers of the first group are set right that it is twice
the least that the judge could see, and so is found nearly always. With six seeds the least itself is planted,
in each of the 20 splits: it must be found about as often as the judge says, in four of five.
"""

import itertools
import math
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from ablations.reporting.cells import CellConfig
from ablations.reporting.judging.difference import LEVEL, Difference
from ablations.reporting.judging.effects import CellRecords, method_gap
from ablations.reporting.judging.noise import RightCounts, evaluation_noise, image_noise, seed_noise
from ablations.reporting.judging.verdicts import EXPECTED, UNEXPECTED
from ablations.reporting.sizes import Size, Sizes
from ablations.reporting.tables import Check, with_half
from pipeline.runs.records import Record

FALSE_ALARM = 0.001  # of a control: a group of seeds differs from another with p below it in so many cases
LEAST = 4  # seeds that are split
SIX = 6  # seeds that are split in all ways
# Percent of the splits in which the least is found: 80 is stated, 200 simulated rows of six seeds gave these.
FOUND = 50, 95


def checks(cells: Sequence[CellConfig], held: CellRecords, sizes: Sizes) -> Iterator[Check]:
    for each in cells:
        yield from _of_seeds(each.cell.label, held.get(each.cell.name, ()))
    plain, *others = cells
    for each in others:
        if each.network is not None and plain.network is not None and each.network != plain.network:
            yield from _of_network(each.cell.label, sizes.of(each.network), sizes.of(plain.network))
        for record in held.get(each.cell.name, ())[:1]:
            same_seed = [one for one in held.get(plain.cell.name, ()) if one.seed == record.seed]
            if each.network is not None and each.network != plain.network and same_seed:
                yield from _of_switch(each, record, same_seed[0], sizes)


def _of_network(label: str, size: Size, plain: Size) -> Iterator[Check]:
    """Untrained, with the weights that both have in common, it answers otherwise."""
    if size.first_step is None or plain.first_step is None:
        return
    yield Check(
        label,
        "the switch reaches the network",
        f"not {_said(plain.first_step)}",
        f"{_said(size.first_step)}",
        _as(size.first_step[0] != plain.first_step[0]),
    )


def _of_switch(each: CellConfig, record: Record, plain: Record, sizes: Sizes) -> Iterator[Check]:
    """The network has the size that its settings give; and it answers otherwise from the first step on."""
    assert each.network is not None
    size = sizes.of(each.network)
    if record.first_step is None or plain.first_step is None or size.params is None:
        return
    counts, wanted = (record.params, record.macs), (size.params, size.macs)
    sound = counts == wanted and record.first_step != plain.first_step
    yield Check(
        each.cell.label,
        "the switch reaches the run",
        f"{size.params:,} parameters; not {_said(plain.first_step)}",
        f"{record.params:,} parameters; {_said(record.first_step)}",
        _as(sound),
    )


def _of_seeds(label: str, records: Sequence[Record]) -> Iterator[Check]:
    """Two groups of a row's seeds, without an effect and with one that is planted."""
    right = [record.right_images() for record in records if record.right]
    if len(right) < LEAST:
        return
    one, other = right[::2], right[1::2]
    gap = _gap(one, other)
    yield Check(label, "seeds in two groups: no effect", "0", with_half(gap.value, gap.half),
                _as(gap.p() >= FALSE_ALARM), (gap.value, gap.half, 0.0))  # fmt: skip
    seed = zlib.crc32(label.encode())
    twice = _planted(one, other, 2, seed)
    if twice is None:
        return  # there are not so many wrong answers
    count, found = twice
    points = 100 * count / one[0].size
    yield Check(label, "effect planted in stored answers", f"{points:+.2f}",
                with_half(found.value, found.half), _as(_is_found(found)),
                (found.value, found.half, points))  # fmt: skip
    if len(right) < SIX:
        return
    tried = [_planted(*groups, 1, seed) for groups in _splits(right[:SIX])]
    rate = 100 * sum(each is not None and _is_found(each[1]) for each in tried) / len(tried)
    yield Check(label, "the least that is seen, planted", "found in {} to {} % of splits".format(*FOUND),
                f"{rate:.0f} % of {len(tried)}", _as(FOUND[0] <= rate <= FOUND[1]))  # fmt: skip


def _splits(runs: Sequence[np.ndarray]) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """All ways to take half of the runs, and the others."""
    for chosen in itertools.combinations(range(len(runs)), len(runs) // 2):
        others = [run for place, run in enumerate(runs) if place not in chosen]
        yield [runs[place] for place in chosen], others


def _planted(
    one: Sequence[np.ndarray], other: Sequence[np.ndarray], times: float, seed: int
) -> tuple[int, Difference] | None:
    """So many times the least that could be seen: in images, and what the judge finds."""
    count = math.ceil(times * _gap(one, other).could_see() / 100 * one[0].size)
    if any(run.sum() + count > run.size for run in one):
        return None
    return count, _gap(plant(one, count, seed), other)


def _is_found(gap: Difference) -> bool:
    return gap.p() < LEVEL and gap.value > 0


def plant(runs: Sequence[np.ndarray], count: int, seed: int) -> list[np.ndarray]:
    """With so many more images right in each run, the same ones first."""
    order = np.random.default_rng(seed).permutation(runs[0].size)
    planted = []
    for run in runs:
        changed = run.copy()
        changed[order[~run[order]][:count]] = True
        planted.append(changed)
    return planted


def _gap(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> Difference:
    values = [[100 * float(run.mean()) for run in runs] for runs in (one, other)]
    images = one[0].size
    evaluation = evaluation_noise(float(np.mean([*values[0], *values[1]])), images)
    noise = seed_noise(values, evaluation, images)
    of_images = image_noise(RightCounts.of(one), RightCounts.of(other), evaluation)
    return method_gap(values[0], values[1], noise, of_images)


def _said(first_step: tuple[float, float]) -> str:
    return "loss {:.8g}, gradient {:.8g}".format(*first_step)


def _as(expected: bool) -> str:
    return EXPECTED if expected else UNEXPECTED
