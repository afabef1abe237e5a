"""The words of the report, and when each is said. docs/statistics.md explains the rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ablations.reporting.judging.difference import LEVEL, Difference

CONFIRMED = "confirmed"  # the rows differ in the paper's direction
OPPOSITE = "opposite"  # they differ in the other
EQUIVALENT = "equivalent"  # closer than a stated margin
DIFFERS = "differs"  # from the paper's figure, or although the paper calls the rows equal
AHEAD, BEHIND = "ahead", "behind"  # the first of two rows, of which the paper says nothing
INCONCLUSIVE = "inconclusive"
NOT_RUN = "not run"
MEASURED = "measured"  # nothing to compare it with
REPORTED = "reported"  # by the paper, of a network that we do not run
MEASURED_HERE = "measured here"  # published weights of such a network
EXPECTED = "as expected"
UNEXPECTED = "not as expected"

# For colours; the word is always shown beside them.
GOOD = (CONFIRMED, EQUIVALENT, EXPECTED)
FAIR = (INCONCLUSIVE,)
BAD = (OPPOSITE, DIFFERS, UNEXPECTED)
PLAIN = (AHEAD, BEHIND)

SAME_FIGURE = 0.5  # points: a figure of ours is equivalent to the paper's if it is closer
SAME_ROWS = 0.3  # two rows that the paper calls equal: the whole range of Table 6


@dataclass(frozen=True)
class Question:
    """A pair of rows to be judged: by how much the paper has the first ahead."""

    difference: Difference
    paper: float | None = None  # 0: the paper calls them equal; None: it does not say
    # Where runs are added after a look at the results: what each look saw, and its share of the error.
    looks: Sequence[tuple[Difference, float]] | None = None

    def p(self, of: Callable[[Difference], float]) -> float:
        """The least of the looks', each corrected for its share."""
        looks = ((self.difference, 1.0),) if self.looks is None else self.looks
        return min([1.0, *(of(seen) / share for seen, share in looks)])

    def first_is_ahead(self) -> bool:
        """As the look saw it that says most."""
        looks = self.looks or ((self.difference, 1.0),)
        return min(looks, key=lambda look: look[0].p() / look[1])[0].value > 0


def judge_figure(delta: Difference) -> str:
    """One figure beside the paper's."""
    if delta.p_beyond(SAME_FIGURE) < LEVEL:
        return EQUIVALENT
    return DIFFERS if delta.p() < LEVEL else INCONCLUSIVE


def judge_pairs(questions: Sequence[Question]) -> list[tuple[str, float]]:
    """The verdict on each pair of a table, and its p by Holm: one false word in twenty tables."""
    ps = holm([_p(each) for each in questions])
    return [(_judge_pair(each, p, len(questions)), p) for each, p in zip(questions, ps, strict=True)]


def judge_range(values: Sequence[float], within: tuple[float, float]) -> str:
    """The verdict on a control: every seed must lie in the range."""
    low, high = within
    return EXPECTED if all(low <= value <= high for value in values) else UNEXPECTED


def holm(ps: Sequence[float]) -> list[float]:
    """p-values as they are where so many were looked at (Holm 1979)."""
    corrected, highest = list(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = highest
    return corrected


def _p(each: Question) -> float:
    return each.p(lambda seen: seen.p_beyond(SAME_ROWS) if each.paper == 0 else seen.p())


def _judge_pair(each: Question, p: float, pairs: int) -> str:
    if each.paper == 0:
        if p < LEVEL:
            return EQUIVALENT
        return DIFFERS if pairs * each.p(Difference.p) < LEVEL else INCONCLUSIVE
    if p >= LEVEL:
        return INCONCLUSIVE
    if each.paper is None:
        return AHEAD if each.first_is_ahead() else BEHIND
    return CONFIRMED if each.first_is_ahead() else OPPOSITE
