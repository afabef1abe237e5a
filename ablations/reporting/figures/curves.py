"""Training curves of a table's runs: loss by epoch and accuracy after epochs, from each run's metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ablations.reporting.figures import style
from ablations.reporting.tables import Table
from pipeline.runs import curves as kept
from pipeline.runs.log import metrics

if TYPE_CHECKING:
    from tnt.figures.canvas import Figure

LOSS, ACCURACY = "loss", "accuracy"
SMOOTHING = 20  # parts of a curve on each side of a point that its mean takes in, as 1/20 of all
BINS = 150  # of a run's length: a loss is the mean within one of them


@dataclass(frozen=True)
class Curve:
    series: int  # the row's place among those with curves: its colour
    label: str
    points: tuple[tuple[float, float], ...]  # epoch, value


@dataclass(frozen=True)
class TrainingCurves:
    """The curves of a table in one column, and the ids of runs whose metrics were not found."""

    losses: tuple[Curve, ...]
    accuracies: tuple[Curve, ...]
    missing: tuple[str, ...]


def read(table: Table, column: str, runs: Path) -> TrainingCurves:
    losses, accuracies, missing = [], [], []
    for series, row in enumerate(row for row in table.rows if not row.peer):
        for entry in row.entries:
            for id in entry.records if entry.column == column else ():
                rows = metrics(runs / id)
                if not rows:
                    missing.append(id)
                    continue
                losses.append(Curve(series, row.label, kept.binned(kept.losses(rows), BINS)))
                accuracies.append(Curve(series, row.label, kept.accuracies(rows)))
    return TrainingCurves(tuple(losses), tuple(accuracies), tuple(missing))


def draw(table: Table, column: str, learned: TrainingCurves, what: str) -> "Figure | None":
    """The loss or the accuracy; None where no metrics were found, or nothing but single points."""
    found = learned.losses if what == LOSS else learned.accuracies
    curves = [each for each in found if len(each.points) > 1]
    if not curves:
        return None
    labels = {curve.series: curve.label for curve in curves}
    right = 0.12 + min(0.068 * max(map(len, labels.values())), 1.5)
    name = f"{style.title(table, column)}: {'loss in training' if what == LOSS else 'accuracy in training'}"
    figure, axes = style.new_plot(3.0, 0.5, top=0.4, bottom=0.78, title=name, right=right)
    ends: dict[int, list[float]] = {}
    for curve in curves:
        colour, mark = style.colour_and_mark(curve.series)
        xs, ys = zip(*curve.points, strict=True)
        shown = smoothed(ys) if what == LOSS else list(ys)
        if what == LOSS:
            axes.plot(xs, ys, color=colour, linewidth=0.5, alpha=0.25)
        axes.plot(xs, shown, color=colour, linewidth=1.1, alpha=0.85)
        axes.plot(xs[-1], shown[-1], color=colour, marker=mark, markersize=4)
        ends.setdefault(curve.series, []).append(shown[-1])
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy" if what == LOSS else "top-1 on the validation split (%)")
    axes.set_xlim(0, max(curve.points[-1][0] for curve in curves))
    axes.set_ylim(*_range(curves))
    axes.grid(True)
    style.names_at_ends(axes, {labels[series]: (fmean(found), series) for series, found in ends.items()})
    style.note_below(figure, _notes(what, len(curves), learned.missing))
    return figure


def smoothed(values: Sequence[float]) -> list[float]:
    """Each the mean of those around it."""
    half = len(values) // SMOOTHING
    return [fmean(values[max(0, place - half) : place + half + 1]) for place in range(len(values))]


def _range(curves: list[Curve]) -> tuple[float, float]:
    """Of all but the first quarter of each run: what is compared lies at its end."""
    late = [value for curve in curves for epoch, value in curve.points if 4 * epoch >= curve.points[-1][0]]
    low, high = min(late), max(late)
    room = 0.06 * (high - low) or 0.5
    return low - room, high + room


def _notes(what: str, drawn: int, missing: tuple[str, ...]) -> list[str]:
    count = f"A line for each of {drawn} runs" if drawn > 1 else "One run"
    gap = f"; the metrics of {len(missing)} more were not found" if missing else ""
    if what == LOSS:
        return [
            f"{count}{gap}.",
            f"Faint: means within 1/{BINS} of a run; over them, of {2 * (BINS // SMOOTHING) + 1} such. "
            "The axis leaves out its beginning.",
        ]
    return [
        f"{count}{gap}.",
        "Of the averaged weights where a run has them; the axis leaves out its beginning.",
    ]
