"""What launch.py tells of runs: the plan with its costs, their status, and their progress on this machine.

For people as tables, a terminal's redrawn while runs go on here; for programs as one JSON object.
"""

import dataclasses
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

from pipeline.config.machine import Paths
from pipeline.config.run import RunConfig
from pipeline.data import dataset
from pipeline.launching.arguments import LaunchRequest
from pipeline.launching.cost import Cost, costs_of
from pipeline.launching.local import LocalRuns, name
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import launches, preflight
from pipeline.launching.status import RunStatus, counted, status_of
from pipeline.runs.directory import LOG, OUTPUT
from pipeline.runs.log import tail
from pipeline.runs.usage import Usage
from pipeline.terminal import can_redraw, clock, live_table

LINES = 20  # of each log
MANY = 60  # rows of a table, more of which nobody reads
REDRAW_EVERY = 1.0  # seconds
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
SPARE = ("where", "attempts", "epoch", "top-1", "disk", "time", "images")
# How a line of progress says the columns of the table of status.
WORDS = {
    "step": "step {}",
    "%": "{} %",
    "images/s": "{} images/s",
    "top-1": "top-1 {} %",
    "left": "{} left",
}

Tell = Callable[[str], None]
Show = Callable[[LocalRuns], None]
# Heads, rows, what stands below, and the columns that a narrow terminal leaves out, the first one first.
Table = tuple[Sequence[str], list[list[str]], str, Sequence[str]]


def plan_table(found: Sequence[RunStatus], costs: Sequence[Cost], when: bool = False) -> Table:
    """`when`: with what Slurm says of their start."""
    rows = [
        {
            "run": at.run.id or "?",
            "cells": cells(at.run),
            "seed": str(at.run.config.seed),
            "state": at.state,
            "images": "" if cost.images is None else f"{cost.images:,}",
            "device-hours": hours(cost.hours),
            "time": f"{clock(cost.seconds)} on {_devices(cost)}" if cost.seconds else "",
            "disk": size(cost.disk),
            "known from": cost.basis if at.state == "no data" else at.error or at.where or cost.basis,
        }
        for at, cost in zip(found, costs, strict=True)
    ]
    known = [cost.hours for cost in costs if cost.hours is not None]
    more = f" and {len(costs) - len(known)} not known" if len(known) < len(costs) else ""
    total = hours((sum(low for low, _ in known), sum(high for _, high in known)))
    configs = [at.run.config for at in found]
    wanted, free = sum(cost.disk for cost in costs), free_space(Path(configs[0].paths.runs))
    disk = size(wanted) or "no"
    short = f", where {size(free)} are free" if wanted > free else ""
    below = f"{total} device-hours{more} and {disk} disk to go{short}; {summary(found)}"
    below += _priced((cost.kwh for cost in costs), (cost.money for cost in costs), "a data sheet")
    for root in dict.fromkeys(config.data.root for config in configs if dataset.to_be_made(config.data)):
        below += f"\n{root} is not there yet: whatever starts the first run makes it"
    below += "".join(f"\n{line}" for line in (expected(found) if when else ()))
    bases = {row["known from"] for row in rows}
    if len(bases) == 1:  # said once
        below += "".join(f"\nknown from: {basis}" for basis in bases if basis)
        rows = [{name: text for name, text in row.items() if name != "known from"} for row in rows]
    return _table(rows, below)


def _devices(cost: Cost) -> str:
    return f"{cost.devices}/{cost.share}" if cost.share > 1 else str(cost.devices)


def _priced(kwh: Iterable[float | None], money: Iterable[float | None], source: str) -> str:
    """A line for energy and money, where they are known of any run."""
    energy, paid = ([value for value in values if value] for values in (kwh, money))
    said = [f"{sum(energy):,.3g} kWh by {source}"] if energy else []
    said += [f"{sum(paid):,.2f} at cluster.per_gpu_hour"] if paid else []
    return f"\n{', '.join(said)}" if said else ""


def expected(found: Sequence[RunStatus]) -> Iterator[str]:
    """For each partition that the first of them may be in, when it would start, and what all would take."""
    for partition, kind, start in preflight.outlook(found[0].run.config):
        ranges = [one.hours for one in costs_of(found, True, kind=kind) if one.hours]
        total = hours((sum(low for low, _ in ranges), sum(high for _, high in ranges)))
        gpu = f", {total} device-hours on {kind}" if kind else ""
        yield f"partition {partition or 'by default'}: would start {start or 'nobody knows when'}{gpu}"


def free_space(folder: Path) -> int:
    """Bytes that its file system has left for us; the folder may not be there yet."""
    place = folder.absolute()
    return shutil.disk_usage(next(path for path in (place, *place.parents) if path.exists())).free


def status_table(found: Sequence[RunStatus]) -> Table:
    """Of many runs, those of which there is something to see."""
    quiet = ("done", "pending", "missing") if len(found) > MANY else ()
    shown = [at for at in found if at.state not in quiet]
    below = summary(found) + _of_all(found)
    if used := [at.usage for at in found if at.usage]:
        below += f"\nused so far: {sum(one.gpu_hours for one in used):,.3g} device-hours"
        sources = " and ".join(sorted({one.energy_by for one in used if one.energy_by}))
        below += _priced((one.kwh for one in used), (one.cost for one in used), sources)
    if len(shown) < len(found):
        below += f"\nonly those that run, or do not go on, are shown; json=true has all {len(found)}"
    below += "".join(f"\n{name(at.run)}: {at.error}" for at in shown if at.error and at.state != "no data")
    rows = [_status_row(at) for at in shown]
    for row in rows if not any(row["used"] for row in rows) else ():
        del row["used"]
    return _table(rows, below)


def _status_row(at: RunStatus) -> dict[str, str]:
    return {
        "run": at.run.id or "?",
        "cells": cells(at.run) + (f" seed {at.run.config.seed}" if at.run.config.seed else ""),
        "state": at.state,
        "step": "" if not at.steps else f"{at.step:,} of {at.steps:,}",
        "%": "" if not at.steps else f"{100 * at.step // at.steps}",
        "images/s": "" if at.images_per_second is None else f"{at.images_per_second:,.0f}",
        "left": clock(at.seconds_left) if at.seconds_left else "",
        "top-1": "" if at.top1 is None else f"{at.top1:.2f}",
        "epoch": "" if at.epoch is None else f"{at.epoch:g}",
        "attempts": str(at.attempts or ""),
        "used": _used(at.usage),
        "where": at.where,
    }


def _used(usage: Usage | None) -> str:
    """Of what was asked for, time at a stretch and memory."""
    if usage is None or usage.hours is None:
        return ""
    time = f"{usage.hours:.3g} h" + (f" of {usage.requested_hours:.3g}" if usage.requested_hours else "")
    return time + (f", {usage.memory_gb:.3g} GB" if usage.memory_gb else "")


def left_of_all(found: Sequence[RunStatus], waiting: int = 0) -> float | None:
    """Seconds until all are done, with as many at work as now; None while that cannot be told."""
    waiting += sum(at.state in ("pending", "missing") for at in found)
    paces = [
        (at.seconds_left, at.step / at.steps)
        for at in found
        if at.state == "running" and at.seconds_left is not None and at.steps and at.step < at.steps
    ]
    if not paces:
        return None
    left, whole = sum(left for left, _ in paces), fmean(left / (1 - share) for left, share in paces)
    return max((left + waiting * whole) / len(paces), *(left for left, _ in paces))


def _of_all(found: Sequence[RunStatus], waiting: int = 0) -> str:
    left = left_of_all(found, waiting)
    return "" if left is None else f"; about {clock(left)} left of all"


def _table(rows: Sequence[dict[str, str]], below: str) -> Table:
    return list(rows[0]) if rows else [], [list(row.values()) for row in rows], below, SPARE


def summary(found: Sequence[RunStatus]) -> str:
    """How many runs are in each state, and each reason for missing data once."""
    obstacles = dict.fromkeys(at.error for at in found if at.state == "no data")
    return "\n".join([", ".join(f"{count} {state}" for state, count in counted(found).items()), *obstacles])


def for_programs(found: Sequence[RunStatus], costs: Sequence[Cost]) -> dict[str, Any]:
    values = []
    for at, cost in zip(found, costs, strict=True):
        run = at.run
        about = {"seed": run.config.seed, "after": run.after, "id": run.id, "labels": run.labels}
        usage = at.usage and dataclasses.asdict(at.usage)
        value = about | vars(at) | {"usage": usage, "cost": dataclasses.asdict(cost)}
        del value["run"]
        values.append(value)
    return {"runs": values, "counts": counted(found)}


def state_line(at: RunStatus) -> str:
    """As: inner_heads/4 (6e6bbc9f1629) is done: node17, 2026-11-21."""
    return f"{', '.join(at.run.labels) or 'run'} ({at.run.id}) is {at.state}{at.where and f': {at.where}'}"


def cells(run: PlannedRun) -> str:
    return ", ".join(run.labels) or f"{run.config.model.name} on {run.config.data.name}"


def hours(found: tuple[float, float] | None) -> str:
    """The lowest and the highest that is expected."""
    low, high = map(_rounded, found or (None, None))
    return low if low == high else f"{low}–{high}"


def _rounded(value: float | None) -> str:
    if value is None or 0 < value < 0.01:
        return "" if value is None else "<0.01"
    return f"{value:,.{0 if value >= 100 else 1 if value >= 1 else 2}f}"


def size(value: int) -> str:
    for unit, letters in UNITS:
        if value >= unit:
            return f"{value / unit:.3g} {letters}"
    return f"{value} B" if value else ""


@contextmanager
def watched(runs: Sequence[PlannedRun], seconds: float) -> Iterator[tuple[Tell, Show]]:
    """Two functions that show events and progress; without a terminal, lines come every `seconds`."""
    with live_table() if can_redraw(sys.stderr) else nullcontext() as screen:
        shown = time.monotonic()

        def tell(text: str) -> None:
            if screen:
                screen.say(text)
            else:
                print(text, file=sys.stderr, flush=True)

        def show(work: LocalRuns) -> None:
            nonlocal shown
            if time.monotonic() - shown < (REDRAW_EVERY if screen else seconds):
                return
            shown = time.monotonic()
            going_on = [run for run in runs if run.id in work.active or run.id in work.elsewhere]
            found = [dataclasses.replace(status_of(run), state="running", error="") for run in going_on]
            rows = [_status_row(at) for at in found]
            below = _counts(runs, work)
            below += _of_all(found, len(runs) - len(work.done) - len(work.failed) - len(found))
            if screen:
                screen.draw(*_table(rows, below))
            else:
                for run, row in zip(going_on, rows, strict=True):
                    words = (text.format(row[key]) for key, text in WORDS.items() if row[key])
                    tell(f"{name(run)}: {', '.join(words) or 'starting'}")
                tell(below)

        yield tell, show


def _counts(runs: Sequence[PlannedRun], work: LocalRuns) -> str:
    counts = {
        "done": len(work.done),
        "at work": len(work.active),
        "elsewhere": len(work.elsewhere),
        "failed": len(work.failed),
    }
    counts["waiting"] = len(runs) - sum(counts.values())
    return f"of {len(runs)} runs: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count)


def logs(request: LaunchRequest, runs: Sequence[PlannedRun]) -> int:
    """The log files of each run and their last lines; the newest file last."""
    shown = []
    for run in runs:
        printed = [run.directory / OUTPUT, *launches.outputs(run.directory.parent, run.id)]
        files = [path for path in (*printed, run.directory / LOG) if run.id and path.exists()]
        shown.append({"run": run.id, "cells": run.labels, "files": [str(path) for path in files]})
        if not request.json:
            print(f"{name(run)}{'' if files else ': nothing yet'}")
            for path in files:
                print(f"  {path}", *tail(path, LINES), sep="\n    ")
    if request.json:
        print(json.dumps({"runs": shown}))
    return 0


def report_command(config: RunConfig) -> str:
    scale = "" if config.scale == "paper" else f" --scale {config.scale}"
    elsewhere = {"records": config.paths.records, "runs": config.paths.runs}
    usual = dataclasses.asdict(Paths())
    folders = [f" --{name} {shlex.quote(path)}" for name, path in elsewhere.items() if path != usual[name]]
    return f"python ablations/report.py{scale}{''.join(folders)}"
