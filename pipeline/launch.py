"""Run an ablation, or one run: plan it, start what is missing, ask how it stands. Safe to say twice.

    python pipeline/launch.py ablation=inner_heads                   submit on a cluster, else run here
    python pipeline/launch.py ablation=all seeds=0,1,2 action=plan   what there is, and what the rest would take
    python pipeline/launch.py ablation=se cells=none,outer           some rows of a table
    python pipeline/launch.py model=tnt_b recipe.epochs=100          one run, of no table
    python pipeline/launch.py ablation=control                       a minute, without data: does all this work?

  ablation=NAME|all    one of those below
  action=submit        start what is not done (the default); after that the command says how to go on
         plan          the runs, their state, device-hours, wall time and disk; nothing is started
         status        how they stand; watch=true until all are done
         logs          what they printed
         cancel        end those at work, with a checkpoint
         retry         start those again that broke
         rehearse      a few steps, a real signal, and the same weights as without it
  seeds=0,1,2          of each cell; cells=a,b takes some of them
  max_gpu_hours=N      refuse to start more than that
  json=true            for programs, on standard output; yes=true asks nothing
  a.b=c                any setting of a run, or cluster=slurm|local|auto or a profile of one's own
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations import spec
from pipeline import config as configs
from pipeline import local_launch, overview, records, tables
from pipeline.cost import Cost, cost
from pipeline.devices import local_device
from pipeline.errors import UserError, WorkFailed, command, unknown_name
from pipeline.standing import Standing, standings
from pipeline.wanted import Wanted, Wish, wanted

ACTIONS = ("submit", "plan", "status", "logs", "cancel", "retry", "rehearse")
OWN = ("ablation", "action", "seeds", "cells", "max_gpu_hours", "json", "watch", "yes")
TRUTH = {"true": True, "false": False}
WATCH_EVERY = 2.0  # seconds


@dataclass(frozen=True)
class Request:
    """A command line, taken apart."""

    ablation: str = ""
    action: str = "submit"
    seeds: tuple[int, ...] = ()
    cells: tuple[str, ...] = ()
    max_gpu_hours: float | None = None
    json: bool = False
    watch: bool = False
    yes: bool = False
    overrides: tuple[str, ...] = field(default=())


def main(argv: Sequence[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\nablations: {', '.join(spec.names())}\n{configs.groups_help()}")
        return 0
    request = parse(argv)
    runs = wanted(wishes(request))
    action = {"plan": plan, "status": status, "logs": logs, "cancel": cancel, "rehearse": rehearse}
    return action.get(request.action, start)(request, runs)


def parse(argv: Sequence[str]) -> Request:
    """Our own names are taken out; the rest is a run's config to judge."""
    own: dict[str, str] = {}
    overrides = []
    for text in argv:
        key, equals, value = text.partition("=")
        if not equals or key.startswith("-"):
            raise UserError(f"{text!r} is no setting; write name=value, as in action=plan, or --help")
        if key in OWN:
            if key in own:
                raise UserError(f"{key} is given twice: {own[key]} and {value}")
            own[key] = value
        elif "." not in key and key not in (*configs.top_level(), "init"):
            raise unknown_name("setting", key, [*OWN, *configs.top_level()])
        else:
            overrides.append(text)
    action = own.get("action", "submit")
    if action not in ACTIONS:
        raise unknown_name("action", action, ACTIONS)
    request = Request(
        ablation=own.get("ablation", ""),
        action=action,
        seeds=tuple(int(_number("seeds", part)) for part in _parts(own.get("seeds", ""))),
        cells=tuple(_parts(own.get("cells", ""))),
        max_gpu_hours=_number("max_gpu_hours", own["max_gpu_hours"]) if "max_gpu_hours" in own else None,
        overrides=tuple(overrides),
        **{name: _truth(name, own.get(name, "false")) for name in ("json", "watch", "yes")},
    )
    if request.seeds and any(text.startswith("seed=") for text in overrides):
        raise UserError("seed= and seeds= are both given; seeds=0,1,2 is a run of each cell for each of them")
    if request.cells and not request.ablation:
        raise UserError("cells= chooses rows of a table; say of which with ablation=")
    return request


def wishes(request: Request) -> list[Wish]:
    if request.ablation:
        return spec.wishes(request.ablation, request.overrides, request.seeds, request.cells)
    config = configs.compose(request.overrides)
    return [Wish(spec.seeded(config, seed)) for seed in request.seeds or (None,)]


def plan(request: Request, runs: Sequence[Wanted]) -> int:
    found = standings(runs, jobs(runs))
    costs = costs_of(runs, found)
    over = ""
    try:
        check_budget(request, costs)
    except UserError as error:
        over = str(error)
    if request.json:
        print(json.dumps(overview.for_programs(runs, found, costs)))
    else:
        tables.show(overview.PLAN, overview.plan_rows(runs, found, costs), overview.plan_totals(found, costs))
    if over:
        raise UserError(over)
    return 0


def status(request: Request, runs: Sequence[Wanted]) -> int:
    if request.watch and not request.json and sys.stdout.isatty():
        with tables.redrawn(sys.stdout) as screen:
            while True:
                found = standings(runs, jobs(runs))
                screen.draw(overview.STATUS, overview.status_rows(runs, found), overview.summary(found))
                if all(at.state == "done" for at in found):
                    return 0
                time.sleep(WATCH_EVERY)
    while True:
        found = standings(runs, jobs(runs))
        if request.json:
            print(json.dumps(overview.for_programs(runs, found)), flush=True)
        else:
            tables.show(overview.STATUS, overview.status_rows(runs, found), overview.summary(found))
        if not request.watch or all(at.state == "done" for at in found):
            return 1 if any(at.state == "broken" for at in found) else 0
        time.sleep(WATCH_EVERY)


def start(request: Request, runs: Sequence[Wanted]) -> int:
    """`submit` and `retry`."""
    found = standings(runs, jobs(runs))
    todo = [
        run
        for run, at in zip(runs, found, strict=True)
        if at.state not in ("done", "no data") and (request.action == "submit" or at.state == "broken")
    ]
    for run, at in zip(runs, found, strict=True):
        if at.state == "no data":
            print(f"{overview.cells(run)}: {at.error}", file=sys.stderr)
    if all(at.state == "no data" for at in found):
        raise UserError("none of these runs has its data; nothing was started")
    chosen = {run.id for run in todo}
    check_budget(
        request, [one for run, one in zip(runs, costs_of(runs, found), strict=True) if run.id in chosen]
    )
    if on_slurm(runs):
        return submit(request, runs, todo)
    return local_launch.start(runs, todo, next_command(request), quiet=request.json)


def next_command(request: Request) -> str:
    return "python ablations/report.py" + (
        f" --scale {scale}" if request.ablation and (scale := _scale(request)) != "paper" else ""
    )


def costs_of(runs: Sequence[Wanted], found: Sequence[Standing]) -> list[Cost]:
    """Of what is not done."""
    slurm = on_slurm(runs)
    known, problems = records.read_all(runs[0].config.paths.records)
    for problem in problems:
        print(problem, file=sys.stderr)
    costs = []
    for run, at in zip(runs, found, strict=True):
        if at.state == "done":
            costs.append(Cost.none("done"))
        else:
            cpu = run.config.engine.device == "cpu" or run.config.cluster.gpu_request == "none"
            device = "" if slurm and not cpu else local_device(run.config)
            costs.append(cost(run, known, device, world(run)))
    return costs


def check_budget(request: Request, costs: Sequence[Cost]) -> None:
    if request.max_gpu_hours is None:
        return
    if any(one.device_hours is None for one in costs):
        raise UserError("max_gpu_hours is given, but what some of these runs take is not known; see action=plan")
    total = sum(one.device_hours or 0.0 for one in costs)
    if total > request.max_gpu_hours:
        raise UserError(
            f"these runs would take {overview.hours(total)} GPU-hours, more than "
            f"max_gpu_hours={request.max_gpu_hours:g}; nothing was started"
        )
