"""Training curves of a table's runs: loss by epoch and accuracy after epochs, from each run's metrics."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.reporting.figures import style
from ablations.reporting.tables import Table
from pipeline.runs import curves as kept
from pipeline.runs.log import metrics

if TYPE_CHECKING:
    from tnt.figures.canvas import Figure

LOSS, ACCURACY = "loss", "accuracy"
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
    """The loss or the accuracy; None where no metrics were found."""
    curves = [curve for curve in (learned.losses if what == LOSS else learned.accuracies) if curve.points]
    if not curves:
        return None
    labels = {curve.series: curve.label for curve in curves}
    columns = 4 if max(map(len, labels.values())) <= 12 else 2
    lines = math.ceil(len(labels) / columns)
    name = f"{style.title(table, column)}: {'loss in training' if what == LOSS else 'accuracy in training'}"
    figure, axes = style.new_plot(3.0 + 0.15 * lines, 0.5, top=0.4 + 0.15 * lines, bottom=0.78, title=name)
    shown: dict[int, Any] = {}
    for curve in curves:
        colour, mark = style.colour_and_mark(curve.series)
        xs, ys = zip(*curve.points, strict=True)
        end = len(xs) - 1
        (line,) = axes.plot(
            xs, ys, color=colour, linewidth=0.9, marker=mark, markersize=4, markevery=[end], alpha=0.85
        )
        shown.setdefault(curve.series, line)
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy" if what == LOSS else "top-1 on the validation split (%)")
    axes.set_xlim(left=0)
    if what == ACCURACY:
        axes.set_ylim(bottom=_floor(curves))
    axes.grid(True)
    series = sorted(shown)
    style.legend(figure, [shown[each] for each in series], [labels[each] for each in series], columns)
    style.note_below(figure, _notes(what, len(curves), learned.missing))
    return figure


def _floor(curves: list[Curve]) -> float:
    """Below all but the first quarter of each run: what is compared lies at its end."""
    late = [value for curve in curves for epoch, value in curve.points if 4 * epoch >= curve.points[-1][0]]
    return max(0.0, min(late) - 1)


def _notes(what: str, drawn: int, missing: tuple[str, ...]) -> list[str]:
    count = f"A line for each of {drawn} runs" if drawn > 1 else "One run"
    gap = f"; the metrics of {len(missing)} more were not found" if missing else ""
    if what == LOSS:
        return [
            f"{count}{gap}.",
            f"Means within 1/{BINS} of a run, with what augmentation and smoothing add.",
        ]
    return [
        f"{count}{gap}.",
        "Of the averaged weights where a run has them; the axis leaves out its beginning.",
    ]
