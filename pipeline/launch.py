"""Run an ablation, or one run: plan it, start what is missing, show its status. No run is started twice.

  python pipeline/launch.py ablation=inner_heads                   submit on a cluster, else run here
  python pipeline/launch.py ablation=all seeds=0,1,2 action=plan   what there is, and what the rest would take
  python pipeline/launch.py ablation=se cells=none,outer           some rows of a table
  python pipeline/launch.py model=tnt_b recipe.epochs=100          one run, of no table
  python pipeline/launch.py ablation=controls                      minutes, without data: does all this work?

ablation=NAME|all    one of those below; controls: of the pipeline itself; anchors: published weights
action=submit        start what is not done (the default); after that the command says how to go on
       plan          runs, device-hours, time, disk; when=true: their start; cost.per_gpu_hour=N: their price
       status        their state
       watch         the same until all are done; html=true as a page in your browser (port=8765)
       logs          what they printed
       cancel        end those at work, with a checkpoint
       retry         start those again that broke
       rehearse      a few steps, a real signal, and the same weights as without it
       calibrate     train a minute and keep the images/s, by which plan and max_gpu_hours count from then on
       clean         show what is no longer needed in the folder of runs, and remove it
       doctor        look at the cluster: what runs would meet there, and a profile to begin with
seeds=0,1,2          of each cell, or seeds=0..9; cells=a,b takes some of them
seeds=auto power=0.8 so many of each cell that the paper's gaps would be found in 80 % of cases, up to ten
until=decided        add seeds where they can still decide a pair of rows; called again, it goes on with what
                     is recorded; max_gpu_hours=N then counts what the table's runs have taken, too
confirm_above=24     ask before runs start that may take more device-hours; yes=true answers
max_gpu_hours=N      refuse to start what may take more than that, or what nothing was measured for
cost.images_per_second=N   of one device: count by this; cost.seconds=60: what a calibration trains
notify=ADDRESS       be told when a job fails and when all have ended: slack://…, mailto://… (apprise)
fresh=true           run again what is done or has begun; what it left is kept under earlier/
json=true            for programs, on standard output; yes=true answers every question with yes
a.b=c                any setting of a run; cluster=slurm|local|auto, or a profile that you wrote
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

try:
    import pipeline  # noqa: F401
except ModuleNotFoundError:
    sys.exit("error: not installed for this Python; `make demo` installs into .venv: activate that")

from ablations import spec
from ablations.reporting import anchors, batches
from ablations.reporting.judging import power
from pipeline.config.overrides import compose, groups_help
from pipeline.errors import UserError, command
from pipeline.files import move_aside
from pipeline.launching import calibration, local, overview, rehearsal
from pipeline.launching.arguments import LaunchRequest, again, parse
from pipeline.launching.cleaning import clean
from pipeline.launching.cost import Cost, check_budget, costs_of
from pipeline.launching.plan import PlannedRun, RequestedRun, planned
from pipeline.launching.slurm import commands, launches, preflight, queue, submission
from pipeline.launching.slurm.doctor import doctor
from pipeline.launching.slurm.queue import Outlook
from pipeline.launching.status import RunStatus, check_access, statuses
from pipeline.launching.view.looks import AT_WORK, Looks
from pipeline.runs import answers
from pipeline.terminal import can_redraw, confirmed, live_table, show_table

WATCH_EVERY = 2.0  # seconds


def main(argv: Sequence[str]) -> int:
    if {"-h", "--help"} & set(argv):
        print(f"{__doc__}\nablations: {', '.join(spec.names())}\n{groups_help()}")
        return 0
    if not argv:
        raise UserError("say what to run, as in ablation=inner_heads action=plan; --help says more")
    request = parse(argv)
    if request.ablation == spec.ANCHORS:
        return anchors.run(request)
    if request.until:
        return batches.until_decided(request, act)
    return act(request, planned(requested_runs(request), making=not request.looks))


def act(request: LaunchRequest, runs: Sequence[PlannedRun]) -> int:
    check_access(runs, writing=not request.looks)
    actions = (plan, status, overview.logs, cancel, rehearse, calibrate, clean, doctor)
    return {action.__name__: action for action in actions}.get(request.action, start)(request, runs)


def requested_runs(request: LaunchRequest) -> list[RequestedRun]:
    if request.power is not None:
        wanted = spec.load(request.ablation).items()
        counts = {name: power.seeds_of(ablation, request.power) for name, ablation in wanted}
        return spec.requested_runs(request.ablation, request.overrides, (), request.cells, counts)
    if request.ablation:
        return spec.requested_runs(request.ablation, request.overrides, request.seeds, request.cells)
    config = compose(request.overrides)
    return [RequestedRun(spec.seeded(config, seed)) for seed in request.seeds or (None,)]


def plan(request: LaunchRequest, runs: Sequence[PlannedRun]) -> int:
    slurm = queue.outlook(runs)
    found = statuses(runs, slurm.jobs)
    costs = costs_of(found, slurm.used, request.images_per_second)
    if request.json:
        print(json.dumps(overview.for_programs(found, costs)))
    else:
        show_table(*overview.plan_table(found, costs, request.when and slurm.used))
        if request.ablation and not request.until and any(run.config.scale == "paper" for run in runs):
            print(*power.lines(spec.load(request.ablation), len(request.seeds) or 1, request.power), sep="\n")
    check_budget(request.max_gpu_hours, costs)
    return 0


def status(request: LaunchRequest, runs: Sequence[PlannedRun]) -> int:
    looks = Looks(runs, again=request.watch)
    if request.html or request.port is not None:
        from pipeline.launching.view import server

        return server.serve(request.port or 0, lambda: looks.for_programs(looks.found()))
    with contextlib.ExitStack() as stack:
        draw = show_table
        if request.watch and not request.json and can_redraw(sys.stdout):
            draw = stack.enter_context(live_table(sys.stdout)).draw
        while True:
            found = looks.found()
            if request.json:
                print(json.dumps(looks.for_programs(found)), flush=True)
            else:
                draw(*overview.status_table(found))
            if not request.watch or not any(at.state in AT_WORK for at in found):
                break
            time.sleep(WATCH_EVERY)
    if not request.json:
        for line in spec.expectations(runs):
            print(line)
    return 1 if any(at.state in ("broken", "unknown") for at in found) else 0


def start(request: LaunchRequest, runs: Sequence[PlannedRun]) -> int:
    """`submit` starts what is not done, `retry` what broke."""
    slurm = queue.outlook(runs, needed=True)
    found = statuses(runs, slurm.jobs)
    earlier = [at for at in found if at.state in ("done", "stopped", "broken")]
    if request.fresh:
        found = [begun_anew(at) for at in found]
    without = [at.run for at in found if at.state == "no data"]
    for reason in dict.fromkeys(run.obstacle for run in without):
        stuck = ", ".join(overview.cells(run) for run in without if run.obstacle == reason)
        print(f"{stuck}: {reason}", file=sys.stderr)
    if len(without) == len(runs):
        raise UserError("none of these runs has its data; nothing was started")
    states = ("broken",) if request.action == "retry" else (*AT_WORK, "stopped", "broken", "missing")
    chosen = [at for at in found if at.state in states]
    todo = [at.run for at in chosen]
    costs = costs_of(chosen, slurm.used, request.images_per_second)
    check_budget(request.max_gpu_hours, costs)
    if not request.yes and not agreed(costs, request.confirm_above):
        print("nothing was started", file=sys.stderr)
        return 1
    if request.fresh:
        set_aside(earlier)
    elif slurm.used and not request.json:  # on this machine the status says so
        for line in (overview.state_line(at) for at in earlier if at.state == "done"):
            print(line, file=sys.stderr)
    if slurm.used and not todo and not request.json:
        print(f"nothing to {request.action}: {overview.summary(found)}")
        return 1 if without else 0
    failed = submit(request, todo, slurm) if slurm.used else run_here(request, runs, todo)
    return failed or (1 if without else 0)


def agreed(costs: Sequence[Cost], without_asking: float) -> bool:
    ranges = [one.hours for one in costs if one.hours]
    least, most = sum(low for low, _ in ranges), sum(high for _, high in ranges)
    return most <= without_asking or confirmed(f"start {least:,.0f} to {most:,.0f} device-hours?")


def begun_anew(at: RunStatus) -> RunStatus:
    if at.state in AT_WORK:
        raise UserError(f"fresh=true: {overview.state_line(at)}; action=cancel ends it")
    return at if at.state == "no data" else RunStatus(at.run, "missing")


def set_aside(earlier: Sequence[RunStatus]) -> None:
    """Put records and directories where they do not count, so that the runs begin again."""
    for at in earlier:
        print(f"{overview.state_line(at)}; it begins anew", file=sys.stderr)
        move_aside(at.run.directory)
        move_aside(at.run.record)
        move_aside(answers.path_of(at.run.config.paths.records, at.run.id))


def run_here(request: LaunchRequest, runs: Sequence[PlannedRun], todo: Sequence[PlannedRun]) -> int:
    """Train them to the end on this machine, then show the status of all."""
    if request.notify:
        raise UserError("notify= tells of jobs, and these runs end before this command does: leave it out")
    work = local.LocalRuns()
    if todo:
        with overview.watched(todo, runs[0].config.logging.seconds) as (tell, show):
            work = local.train(todo, tell, show)
    status(dataclasses.replace(request, watch=False), runs)
    if len(work.done) + len(work.failed) < len(todo):
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 130
    for run in todo:
        if run.id in work.failed:
            print(f"failed: {local.name(run)}: {work.failed[run.id]}", file=sys.stderr)
    if work.failed:
        retry = again(request, "retry")
        print(f"action=logs shows what they printed, {retry} starts them again", file=sys.stderr)
    elif request.ablation:
        print(f"the tables: {overview.report_command(runs[0].config)}", file=sys.stderr)
    return 1 if work.failed else 0


def submit(request: LaunchRequest, todo: Sequence[PlannedRun], slurm: Outlook) -> int:
    """As jobs: to their ends, or to be calibrated."""
    calibrated = request.action == "calibrate"
    seconds, who = (request.seconds, "") if calibrated else (0.0, request.notify)
    submitted = submission.submit(todo, slurm.queue, calibration=seconds, notify=who)
    if request.json:
        print(json.dumps({"submitted": [dataclasses.asdict(one) for one in submitted]}))
    else:
        names = {run.id: overview.cells(run) for run in todo}
        said = ("at work already", "submitted")
        rows = [[one.id, names[one.id], one.job or "outside of Slurm", said[one.new]] for one in submitted]
        show_table(("run", "cells", "job", ""), rows)
        print(*preflight.remarks(commands.site()[0]), sep="\n")
        what, action = ("rates, once they have ended", "plan") if calibrated else ("status", "status")
        print(f"their {what}: {again(request, action)}")
    return 0


def cancel(request: LaunchRequest, runs: Sequence[PlannedRun]) -> int:
    """Cancel jobs, and ask processes of this host to end: each run writes a checkpoint first."""
    slurm = queue.outlook(runs, needed=True)
    alive = [at for at in statuses(runs, slurm.jobs) if at.state in AT_WORK]
    if not alive:
        print("none of these runs is at work")
        return 0
    folder, ids = Path(runs[0].config.paths.runs), [at.run.id for at in alive]
    said = [f"{', '.join(at.run.labels)} ({at.run.id}): {at.state}, {at.where}" for at in alive]
    print(*said, *launches.beside(folder, ids), sep="\n")
    if not request.yes and not confirmed(f"end {len(alive)} runs?"):
        print("nothing was done")
        return 1
    ended = submission.cancel(folder, ids, slurm.queue) if slurm.queue else []
    ended += [who for id in ids if (who := local.ask_to_end(folder / id))]
    print("\n".join(f"asked to end: {who}" for who in ended) or "none of them can be reached from here")
    return 0 if ended else 1


def rehearse(request: LaunchRequest, runs: Sequence[PlannedRun]) -> int:
    ready = [run for run in runs if run.id and not run.after]
    if not ready:
        raise UserError("none of these runs can be rehearsed: " + "; ".join(run.obstacle for run in runs))
    kind = rehearsal.SlurmCopy if queue.outlook(runs, needed=True).used else rehearsal.LocalCopy
    said = rehearsal.rehearse(ready[0], kind)
    print(json.dumps({"run": ready[0].id, "said": said}) if request.json else said)
    return 0


def calibrate(request: LaunchRequest, runs: Sequence[PlannedRun]) -> int:
    """Train each kind of run among these for a while, here or as jobs, and keep the rate."""
    ready = [run for run in runs if run.id]
    if not ready:
        raise UserError("none of these runs has its data: " + "; ".join({run.obstacle for run in runs}))
    todo = calibration.copies(ready, request.seconds)
    slurm = queue.outlook(todo, needed=True)
    if slurm.used:
        return submit(request, todo, slurm)
    calibration.run_here(todo, request.seconds)
    return 0


if __name__ == "__main__":
    command(main, stopped="stopped; runs that were started go on")
