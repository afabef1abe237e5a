"""`until=decided`: which runs a table goes on with, given what its records say.

Each row begins with three runs. Then those rows go on to the next look of `judging.sequential` that stand in
a pair that is not decided, and that further runs may decide. All of it follows from the records, so the same
command may be given again at any time: it starts what is not done of the present batch, or the next.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ablations import spec
from ablations.reporting.cells import cell_configs, overrides_of, scale_overrides
from ablations.reporting.judging import sequential
from ablations.reporting.judging.effects import CellRecords
from ablations.reporting.judging.table import judge_table
from ablations.reporting.judging.verdicts import INCONCLUSIVE
from ablations.reporting.sizes import Sizes
from ablations.reporting.tables import COLUMNS, Effect, Table, with_half
from pipeline.config.overrides import compose
from pipeline.launching.arguments import LaunchRequest
from pipeline.launching.cost import costs_of
from pipeline.launching.plan import PlannedRun, planned
from pipeline.launching.slurm import queue
from pipeline.launching.status import RunStatus
from pipeline.runs import records
from pipeline.runs.records import Record
from pipeline.terminal import show_table

Act = Callable[[LaunchRequest, Sequence[PlannedRun]], int]


@dataclass(frozen=True)
class PairState:
    """A pair of rows, and what comes next for it."""

    effect: Effect
    runs: tuple[int, int]  # done
    cells: tuple[str, str]
    look: int | None = None  # how many runs of both it goes on to
    why: str = ""  # it goes on no more, though it is not decided

    @property
    def hope(self) -> float:
        return 1.0 if self.effect.chance is None else self.effect.chance


@dataclass(frozen=True)
class TableState:
    table: Table
    runs: Sequence[PlannedRun]  # all seeds of all cells
    held: dict[str, list[Record]]
    pairs: Sequence[PairState]

    def batch(self) -> list[PlannedRun]:
        """What is done, and what the pairs need that are behind; the next look comes when these have it."""
        going = {pair.cells: pair.look for pair in self.pairs if pair.look}
        look = min(going.values(), default=0)
        wanted = sequential.wanted({cells: runs for cells, runs in going.items() if runs == look})
        done = {record.id for kept in self.held.values() for record in kept}
        chosen: list[PlannedRun] = []
        for cell, kept in self.held.items():
            mine = [run for run in self.runs if f"{self.table.ablation}/{cell}" in run.labels]
            mine.sort(key=lambda run: run.config.seed)
            chosen += [run for run in mine if run.id in done]
            lacking = [run for run in mine if run.id not in done]
            chosen += lacking[: max(0, wanted.get(cell, 0) - len(kept))]
        starts = {run.after for run in chosen} - {""}
        return [run for run in self.runs if run.id in starts or any(run is one for one in chosen)]


def until_decided(request: LaunchRequest, act: Act) -> int:
    """Batch after batch on this machine; of jobs one, as they go on when this command has ended."""
    before = None
    while True:
        states = [state_of(name, request) for name in spec.load(request.ablation)]
        done = {record.id: record for state in states for kept in state.held.values() for record in kept}
        if before == set(done):
            return 0
        before = set(done)
        spent = sum(record.device_hours for record in done.values())
        most = None if request.max_gpu_hours is None else max(0.0, request.max_gpu_hours - spent)
        if most is not None:
            states = affordable(states, request, done, most)
        if not request.json:
            show_table(*pair_table(states, spent))
        runs = list({run.id or id(run): run for state in states for run in state.batch()}.values())
        if not runs:
            return 0
        code = act(dataclasses.replace(request, max_gpu_hours=most), runs)
        if code or request.action != "submit":
            return code


def state_of(name: str, request: LaunchRequest) -> TableState:
    whole = spec.load(name)[name]
    scale = compose([*whole.base, *request.overrides]).scale
    ablation = whole.at(scale)
    asked = spec.requested_runs(name, request.overrides, range(sequential.LAST), request.cells)
    counted = (dataclasses.replace(each, until_decided=True) for each in asked)
    runs = planned(counted, making=not request.looks)
    held: dict[str, list[Record]] = {each.cell: [] for each in asked}
    for run in runs:
        for label in run.labels:
            if run.id and records.exists(run.config.paths.records, run.id):
                record = records.read(records.record_path(run.config.paths.records, run.id))
                held[label.partition("/")[2]].append(record)
    cells = cell_configs(name, ablation, request.overrides)
    usual = cell_configs(name, ablation, scale_overrides(ablation, scale))[0]
    protocol = " ".join(overrides_of(usual.science.changes(cells[0].science)))
    table = judge_table(ablation, cells, held, scale, protocol, Sizes({}), looked=True)
    return TableState(table, runs, held, pair_states(table, held))


def pair_states(table: Table, held: CellRecords) -> list[PairState]:
    """Of the pairs of these rows."""
    keys = {f"{table.name}/{cell}": cell for cell in held}
    return [
        _pair(effect, (keys[effect.ahead], keys[effect.behind]), held)
        for effect in table.effects
        if effect.ahead in keys and effect.behind in keys
    ]


def _pair(effect: Effect, cells: tuple[str, str], held: CellRecords) -> PairState:
    runs = len(held[cells[0]]), len(held[cells[1]])
    found, look = PairState(effect, runs, cells), sequential.next_look(*runs)
    if not sequential.looks_taken(*runs):
        return dataclasses.replace(found, look=look)
    if effect.verdict != INCONCLUSIVE:
        return found
    if look is None:
        return dataclasses.replace(found, why=f"not decided by {sequential.LAST} runs")
    if found.hope < sequential.HOPELESS:
        return dataclasses.replace(found, why=f"{found.hope:.0%} to be decided by {sequential.LAST} runs")
    return dataclasses.replace(found, look=look)


def affordable(
    states: Sequence[TableState], request: LaunchRequest, done: dict[str, Record], most: float
) -> list[TableState]:
    """Without the pairs that are least likely to be decided, so that the rest stays within device-hours."""
    states = list(states)
    while going := [
        (pair.hope, at, pair) for at, state in enumerate(states) for pair in state.pairs if pair.look
    ]:
        todo = [run for state in states for run in state.batch() if run.id not in done]
        missing = [RunStatus(run, "missing") for run in todo]
        costs = costs_of(missing, queue.outlook(todo).used, request.images_per_second) if todo else []
        if sum(high for _, high in filter(None, (one.hours for one in costs))) <= most:
            break
        _, at, least = min(going, key=lambda each: each[:2])
        left = dataclasses.replace(least, look=None, why="max_gpu_hours is too low")
        pairs = [left if pair is least else pair for pair in states[at].pairs]
        states[at] = dataclasses.replace(states[at], pairs=pairs)
    return states


def pair_table(states: Sequence[TableState], spent: float) -> tuple[Sequence[str], list[list[str]], str]:
    """What is decided, what goes on and why, and what is left."""
    rows = []
    for state in states:
        for pair in state.pairs:
            effect = pair.effect
            next_ = pair.why and f"left: {pair.why}"
            if pair.look:
                hope = "" if effect.chance is None else f", {effect.chance:.0%} to be decided"
                next_ = f"to {pair.look} runs{hope}"
            rows.append(
                [
                    f"{state.table.ablation} {pair.cells[0]} − {pair.cells[1]}",
                    COLUMNS.get(effect.column, effect.column),
                    "–".join(map(str, dict.fromkeys(sorted(pair.runs)))),
                    "" if effect.ours is None else with_half(effect.ours, effect.half),
                    effect.verdict,
                    next_,
                ]
            )
    every = [pair for state in states for pair in state.pairs]
    going, left = sum(bool(pair.look) for pair in every), sum(bool(pair.why) for pair in every)
    below = (
        f"{len(every) - going - left} decided, {going} go on, {left} left; {spent:.3g} device-hours until now"
    )
    return ("pair", "", "runs", "ours", "verdict", "next"), rows, below
