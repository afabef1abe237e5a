"""What launch.py tells of runs: the plan with its costs, and how they stand; for people and for programs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from pipeline.launching.cost import Cost
from pipeline.launching.plan import Wanted
from pipeline.launching.status import Standing, counted
from pipeline.terminal import clock

PLAN = ("run", "cells", "seed", "state", "images", "device-hours", "time", "disk", "known from")
STATUS = ("run", "cells", "state", "step", "epoch", "images/s", "top-1", "left", "attempts", "", "last error")
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def plan_rows(runs: Sequence[Wanted], found: Sequence[Standing], costs: Sequence[Cost]) -> list[list[str]]:
    return [
        [
            run.id or "?",
            cells(run),
            str(run.config.seed),
            at.state,
            "" if cost.images is None else f"{cost.images:,}",
            hours(cost.device_hours),
            ""
            if cost.seconds is None
            else f"{clock(cost.seconds)} on {cost.devices}"
            if cost.seconds
            else "",
            size(cost.disk),
            cost.basis if at.state == "no data" else at.error or cost.basis,
        ]
        for run, at, cost in zip(runs, found, costs, strict=True)
    ]


def status_rows(runs: Sequence[Wanted], found: Sequence[Standing]) -> list[list[str]]:
    return [
        [
            run.id or "?",
            cells(run) + (f" seed {run.config.seed}" if run.config.seed else ""),
            at.state,
            "" if not at.steps else f"{at.step:,} of {at.steps:,}",
            "" if at.epoch is None else f"{at.epoch:g}",
            "" if at.images_per_second is None else f"{at.images_per_second:,.0f}",
            "" if at.top1 is None else f"{at.top1:.2f}",
            clock(at.seconds_left) if at.seconds_left else "",
            str(at.attempts or ""),
            at.where,
            "" if at.state == "no data" else at.error,
        ]
        for run, at in zip(runs, found, strict=True)
    ]


def plan_totals(found: Sequence[Standing], costs: Sequence[Cost]) -> str:
    """Of what is still to be done."""
    known = [cost.device_hours for cost in costs if cost.device_hours is not None]
    unknown = len(costs) - len(known)
    more = f" and {unknown} not known" if unknown else ""
    disk = sum(cost.disk or 0 for cost in costs)
    return (
        f"{hours(sum(known)) or 0} device-hours{more} and {size(disk) or 'no'} disk to go; {summary(found)}"
    )


def summary(found: Sequence[Standing]) -> str:
    """How many are in which state, and once each why there are no data."""
    obstacles = dict.fromkeys(at.error for at in found if at.state == "no data")
    return "\n".join([", ".join(f"{count} {state}" for state, count in counted(found).items()), *obstacles])


def for_programs(
    runs: Sequence[Wanted], found: Sequence[Standing], costs: Sequence[Cost] = ()
) -> dict[str, Any]:
    values = []
    for index, (run, at) in enumerate(zip(runs, found, strict=True)):
        value = {"seed": run.config.seed, "after": run.after, **dataclasses.asdict(at)}
        if costs:
            value["cost"] = dataclasses.asdict(costs[index])
        values.append(value)
    return {"runs": values, "counts": counted(found)}


def cells(run: Wanted) -> str:
    return ", ".join(run.labels) or f"{run.config.model.name} on {run.config.data.name}"


def hours(value: float | None) -> str:
    if value is None:
        return ""
    if 0 < value < 0.01:
        return "<0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 1 else f"{value:.2f}"


def size(value: int | None) -> str:
    for unit, name in UNITS:
        if value and value >= unit:
            return f"{value / unit:.3g} {name}"
    return "" if not value else f"{value} B"
