"""The curves of a run, from the lines of its metrics: loss by epoch, and accuracy after epochs."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

Points = tuple[tuple[float, float], ...]  # epoch, value


def losses(rows: Sequence[dict[str, Any]]) -> Points:
    found = [(row["epoch"], row.get("loss")) for row in rows if "epoch" in row]
    return tuple((epoch, value) for epoch, value in found if value is not None)


def accuracies(rows: Sequence[dict[str, Any]]) -> Points:
    """Of the weights' average where it was measured: it is what the run is judged by."""
    found = [(row["evaluated"], row.get("ema_top1", row.get("top1"))) for row in rows if "evaluated" in row]
    return tuple((float(epoch), value) for epoch, value in found if value is not None)


def binned(points: Points, bins: int) -> Points:
    """Means within equal parts of the run's length; a part without points has none."""
    if not points:
        return ()
    end = points[-1][0]
    parts: dict[int, list[tuple[float, float]]] = {}
    for epoch, value in points:
        part = min(bins - 1, int(bins * epoch / end)) if end else 0
        parts.setdefault(part, []).append((epoch, value))
    return tuple((fmean(x for x, _ in part), fmean(y for _, y in part)) for _, part in sorted(parts.items()))
