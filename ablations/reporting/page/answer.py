"""How the page begins: what all runs together say, in a sentence, and the claims that it counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ablations.reporting.judging import verdicts
from ablations.reporting.page.page_table import TONES
from ablations.reporting.tables import COLUMNS, Effect, Table, file_name, heading, said, with_half

SPAN = 1.1  # of a claim's picture, in its longest interval


@dataclass(frozen=True)
class Claim:
    """A difference between two rows, as the paper has it and as we have; the numbers are for its picture."""

    text: str
    table: str  # where it stands on the page
    title: str
    ours: str
    verdict: str
    tone: str
    value: float
    half: float
    paper: float | None


@dataclass(frozen=True)
class Answer:
    sentence: str
    told: tuple[Claim, ...]  # differences that were told from noise, those against the paper first
    untold: tuple[Claim, ...]

    @property
    def reach(self) -> float:
        """From the middle of a claim's picture to its edge."""
        ends = [abs(each.value) + each.half for each in (*self.told, *self.untold)]
        return SPAN * max([*ends, *(abs(each.paper or 0) for each in (*self.told, *self.untold))], default=1)


def answer(tables: Sequence[Table], scale: str) -> Answer:
    own = [table for table in tables if not table.protocol]
    claims = [claim(table, effect) for table in own for effect in table.effects if effect.ours is not None]
    order = {tone: place for place, tone in enumerate(("bad", "good", "plain"))}
    told = sorted((each for each in claims if each.tone in order), key=lambda each: order[each.tone])
    sentence = _of_the_paper(own, claims) if scale == "paper" else _of_the_pipeline(own)
    return Answer(sentence, tuple(told), tuple(each for each in claims if each.tone not in order))


def claim(table: Table, effect: Effect) -> Claim:
    labels = {entry.key: row.label for row in table.rows for entry in row.entries}
    column = "" if effect.column == "top1" else f", {COLUMNS.get(effect.column, effect.column)}"
    assert effect.ours is not None
    return Claim(
        text=f"{labels[effect.ahead]} − {labels[effect.behind]}{column}",
        table=file_name(table),
        title=heading(table),
        ours=with_half(effect.ours, effect.half),
        verdict=said(effect),
        tone=TONES[effect.verdict],
        value=effect.ours,
        half=effect.half or 0.0,
        paper=effect.paper,
    )


def _of_the_paper(tables: Sequence[Table], claims: Sequence[Claim]) -> str:
    asked = sum(effect.paper is not None for table in tables for effect in table.effects)
    if not any(entry.values for table in tables for entry in table.entries):
        return (
            f"No run has finished yet, so nothing is known of the {asked} differences that the paper prints."
        )
    judged = [each for each in claims if each.paper is not None]
    if not judged:
        return f"Of the {asked} differences that the paper prints, none has both its runs yet."
    words = Counter(each.verdict.split(" (")[0] for each in judged)
    known = (*verdicts.BAD, *verdicts.GOOD, *verdicts.FAIR)
    parts = [f"{words[word]} {word}" for word in known if words[word]]
    return (
        f"Of the {asked} differences that the paper prints, {len(judged)} were measured: {', '.join(parts)}."
    )


def _of_the_pipeline(tables: Sequence[Table]) -> str:
    found = [entry.verdict for table in tables for entry in table.entries]
    found += [check.verdict for table in tables for check in table.checks]
    good, bad = found.count(verdicts.EXPECTED), found.count(verdicts.UNEXPECTED)
    if bad:
        return f"{bad} of {good + bad} controls did not come out as they must: trust no number here."
    if good:
        return (
            f"All {good} controls came out as they must: the pipeline works. "
            "These runs say nothing about the paper."
        )
    return "These runs say nothing about the paper; no control has been run."
