"""How the page begins: the sentence, and the claims in their order."""

import dataclasses

import pytest

from ablations.reporting.judging import verdicts
from ablations.reporting.page.answer import answer
from ablations.reporting.tables import Check, Effect, Entry, Table, TableRow


def table(*effects: Effect, values: tuple[float, ...] = (81.0,), scale: str = "paper") -> Table:
    rows = [
        TableRow(f"table6/{name}", f"{name} heads", (Entry(f"table6/{name}", "top1", values=values),))
        for name in "124"
    ]
    return Table("inner_heads", "6", "Heads", "", scale, ("top1",), tuple(rows), effects=effects)


def effect(verdict: str, ours: float | None, paper: float | None = 0.3) -> Effect:
    return Effect("top1", "table6/2", "table6/1", paper, ours, None if ours is None else 0.2, verdict=verdict)


def test_contradictions_come_first_and_what_is_noise_is_apart():
    found = answer(
        [
            table(
                effect(verdicts.INCONCLUSIVE, 0.1),
                effect(verdicts.CONFIRMED, 0.4),
                effect(verdicts.OPPOSITE, -0.5),
                effect(verdicts.NOT_RUN, None),
            )
        ],
        "paper",
    )
    assert [each.verdict for each in found.told] == [verdicts.OPPOSITE, verdicts.CONFIRMED]
    assert [each.text for each in found.untold] == ["2 heads − 1 heads"]
    assert found.sentence.startswith("Of the 4 differences that the paper prints, 3 were measured: ")
    assert found.sentence.endswith(": 1 opposite, 1 confirmed, 1 inconclusive.")
    assert found.reach == pytest.approx(1.1 * 0.7)


def test_without_runs_nothing_is_claimed():
    found = answer([table(effect(verdicts.NOT_RUN, None), values=())], "paper")
    assert found.sentence.startswith("No run has finished yet")
    assert not found.told + found.untold


def test_a_row_alone_makes_no_difference():
    found = answer([table(effect(verdicts.NOT_RUN, None))], "paper")
    assert found.sentence.endswith("differences that the paper prints, none has both its runs yet.")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "These runs say nothing about the paper; no control has been run."),
        ([verdicts.EXPECTED] * 2, "All 2 controls came out as they must"),
        ([verdicts.EXPECTED, verdicts.UNEXPECTED], "1 of 2 controls did not come out as they must"),
    ],
)
def test_at_another_scale_the_controls_speak(words, sentence):
    checks = tuple(Check("mark", "accuracy", "90 to 100", "95", word) for word in words)
    found = answer([dataclasses.replace(table(scale="demo"), checks=checks)], "demo")
    assert found.sentence.startswith(sentence)


def test_another_protocol_is_not_the_papers():
    other = dataclasses.replace(table(effect(verdicts.OPPOSITE, -0.5)), protocol="recipe.epochs=100")
    assert not answer([table(effect(verdicts.NOT_RUN, None)), other], "paper").told
