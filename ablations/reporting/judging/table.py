"""A table made from the records of its cells: rows in the paper's order, a verdict for each figure, and notes
on what else may have moved the figures.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, groupby
from types import MappingProxyType

from ablations.reporting.cells import CellConfig, Science
from ablations.reporting.judging.controls import checks
from ablations.reporting.judging.difference import LEVEL, quantile
from ablations.reporting.judging.effects import CellRecords, column_noise, effects, figure_gap
from ablations.reporting.judging.noise import SeedNoise
from ablations.reporting.judging.power import plans, sentence
from ablations.reporting.judging.verdicts import MEASURED, MEASURED_HERE, REPORTED, judge_figure, judge_range
from ablations.reporting.sizes import Size, Sizes, printed, printed_peer
from ablations.reporting.tables import Entry, Table, TableRow, is_papers_table
from ablations.spec import Ablation, Cell, Peer
from pipeline.runs.evaluations import Evaluation
from pipeline.runs.records import Record

TOP = ("top1", "top5")
# Versions that may move a number; others stand in the records.
VERSIONS = ("torch", "deepspeed")


def judge_table(
    ablation: Ablation,
    cells: Sequence[CellConfig],
    held: CellRecords,
    scale: str,
    protocol: str,
    sizes: Sizes,
    looked: bool | None = None,
    published: Mapping[str, Evaluation] = MappingProxyType({}),
) -> Table:
    """The table of an ablation; it is compared with the paper only where the protocol is the paper's.

    `published`: by row, what weights of others gave.
    `looked`: whether runs were added after looks at the results; None: as the records say.
    """
    if scale != "paper":
        ablation, cells = _merged(ablation, cells)
    table = Table(
        ablation=cells[0].ablation,
        number=ablation.table,
        title=ablation.title,
        why=ablation.why,
        scale=scale,
        columns=tuple(dict.fromkeys(cell.column for cell in ablation.cells if cell.column)) or TOP,
        rows=(),
        protocol=protocol,
        notes=tuple(table_notes(cells, held)),
    )
    if is_papers_table(table):
        seeds = max([1, *map(len, held.values())])
        power = tuple(sentence(plan, seeds) for plan in plans(ablation))
        later = (f"later: {ablation.later}",) if ablation.later else ()
        table = dataclasses.replace(table, notes=(*later, *table.notes, *power))
    by_name = {each.cell.name: each for each in cells}
    rows = []
    for label, members in groupby(ablation.rows, key=lambda row: row.label):
        group = list(members)
        mine = [by_name[row.name] for row in group if isinstance(row, Cell)]
        if mine and mine[0].cell.column:
            rows.append(_row(table, label, mine, held, sizes))
        else:
            rows += [_row(table, label, [each], held, sizes) for each in mine]
        if is_papers_table(table):
            peers = [row for row in group if isinstance(row, Peer)]
            rows += [_peer(table, row, sizes, published.get(row.label)) for row in peers]
    if looked is None:
        looked = any(record.until_decided for record in chain(*held.values()))
    noises = {}
    for column in table.columns:
        found = [entry for row in rows if not row.peer and (entry := row.entry(column)) and entry.values]
        if found:
            images = min(entry.images for entry in found)
            noises[column] = column_noise([entry.values for entry in found], images)
    rows = [_judge(row, noises, by_name, table) for row in rows]
    table = dataclasses.replace(table, rows=tuple(rows))
    table = dataclasses.replace(
        table,
        effects=tuple(effects(table, ablation, held, noises, looked)),
        checks=() if protocol else tuple(checks(cells, held, sizes)),  # other settings have other sizes
    )
    return dataclasses.replace(table, why=_caution(table)) if scale != "paper" and table.effects else table


def _merged(ablation: Ablation, cells: Sequence[CellConfig]) -> tuple[Ablation, list[CellConfig]]:
    """With one column for each set of images of a scale: the demo's Table 8 is of digits alone."""
    kept: dict[tuple[str, str], CellConfig] = {}
    for each in cells:
        data = each.config.data.name
        cell = dataclasses.replace(each.cell, column=data) if each.cell.column else each.cell
        kept.setdefault((cell.label, cell.column or cell.name), dataclasses.replace(each, cell=cell))
    return dataclasses.replace(ablation, rows=tuple(each.cell for each in kept.values())), list(kept.values())


def _caution(table: Table) -> str:
    """In place of what the paper claims, which such runs do not test."""
    halves = [effect.half for effect in table.effects if effect.half and effect.column == table.columns[0]]
    noise = f" Gaps below {max(halves):.1f} points are noise." if halves else ""
    return f"These runs show that the pipeline works; they say nothing about the paper.{noise}"


def _row(table: Table, label: str, cells: Sequence[CellConfig], held: CellRecords, sizes: Sizes) -> TableRow:
    entries = [entry for each in cells for entry in _entries(table, each, held.get(each.cell.name, ()))]
    network = cells[0].network
    runs = {record.id: record for each in cells for record in held.get(each.cell.name, ())}.values()
    devices = {record.device for record in runs}
    if network is None:
        # A network of timm: the run itself counted it.
        records = [record for each in cells for record in held.get(each.cell.name, ())]
        known = printed_peer(table.number, label)
        size = sizes.of_peer(known) if known else Size()
        size = Size(records[0].params, macs=records[0].macs) if records else size
        params, macs = (known.params, known.flops) if known else (None, None)
    else:
        size = sizes.of(network)
        params, macs = printed(table.number or table.ablation, network)
    if not is_papers_table(table):
        params = macs = None
    name, column = cells[0].cell.name, cells[0].cell.column
    return TableRow(
        key=f"{table.name}/{name.removesuffix(f'-{column}') if column else name}",
        label=label,
        entries=tuple(entries),
        params=size.params,
        params_frozen=size.params_frozen,
        macs=size.macs,
        paper_params=params,
        paper_macs=macs,
        speed=statistics.median(run.images_per_second / run.world for run in runs) if runs else None,
        device=devices.pop() if len(devices) == 1 else "",
        notes=size.faults,
    )


def _entries(table: Table, each: CellConfig, held: Sequence[Record]) -> Iterator[Entry]:
    cell = each.cell
    for column in [cell.column] if cell.column else TOP:
        measure = "top1" if cell.column else column
        is_papers = is_papers_table(table)
        yield Entry(
            key=f"{table.name}/{cell.name}",
            column=column,
            paper=cell.paper.get(measure) if is_papers else None,
            official=cell.paper.get(f"official_{measure}") if is_papers else None,
            values=tuple(getattr(record.best, measure) for record in held),
            seeds=tuple(record.seed for record in held),
            records=tuple(record.id for record in held),
            images=held[0].best.images if held else 0,
        )


def _peer(table: Table, peer: Peer, sizes: Sizes, measured: Evaluation | None) -> TableRow:
    known = printed_peer(table.number, peer.label)
    size = None if known is None else sizes.of_peer(known)
    return TableRow(
        key=f"{table.name}/{peer.label}",
        label=peer.label,
        entries=tuple(_peer_entry(column, peer.paper.get(column), measured) for column in table.columns),
        peer=True,
        params=size.params if size else None,
        macs=size.macs if size else None,
        paper_params=known.params if known else None,
        paper_macs=known.flops if known else None,
        notes=() if size and size.params else ("not in timm: its size is as reported",),
    )


def _peer_entry(column: str, paper: float | None, measured: Evaluation | None) -> Entry:
    if measured is None or column not in TOP:
        return Entry("", column, paper=paper, verdict=REPORTED)
    values = (getattr(measured, column),)
    return Entry("", column, paper=paper, values=values, images=measured.images, verdict=MEASURED_HERE)


def _judge(
    row: TableRow, noises: Mapping[str, SeedNoise], cells: Mapping[str, CellConfig], table: Table
) -> TableRow:
    if row.peer:
        return row
    entries = []
    for entry in row.entries:
        within = cells[entry.key.partition("/")[2]].cell.within if entry.key else None
        if entry.values and within and entry.column == TOP[0] and not table.protocol:
            entry = dataclasses.replace(entry, verdict=judge_range(entry.values, within))
        elif entry.values:
            noise = noises[entry.column]
            half = quantile(1 - LEVEL / 2, noise.freedom) * noise.s / math.sqrt(entry.n)
            entry = dataclasses.replace(entry, half=half, source=noise.source(entry.n), verdict=MEASURED)
            if entry.paper is not None:
                delta = figure_gap(entry.values, entry.paper, noise)
                entry = dataclasses.replace(
                    entry, delta_half=delta.half, could_see=delta.could_see(), verdict=judge_figure(delta)
                )
            if entry.official is not None:
                delta = figure_gap(entry.values, entry.official, noise)
                entry = dataclasses.replace(entry, later_half=delta.half, later_verdict=judge_figure(delta))
        entries.append(entry)
    return dataclasses.replace(row, entries=tuple(entries))


def table_notes(cells: Sequence[CellConfig], held: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    """What a reader must know before believing a table: what else differs, what went wrong."""
    yield from _one_run_for_several(cells)
    records = sorted({record.id: record for record in chain(*held.values())}.values(), key=lambda r: r.id)
    commits = sorted({record.commit for record in records})
    if len(commits) > 1:
        yield f"made by {len(commits)} commits of the code: {', '.join(commit[:12] for commit in commits)}"
    for package in VERSIONS:
        versions = sorted({record.versions.get(package, "unknown") for record in records})
        if len(versions) > 1:
            yield f"made with {len(versions)} versions of {package}: {', '.join(versions)}"
    worlds = sorted({f"{record.world} × {record.device}" for record in records})
    if len(worlds) > 1:
        yield f"made on different devices: {'; '.join(worlds)}"
    for text, chosen in {
        "the code held changes that its commit does not": [r for r in records if r.dirty],
        "steps were skipped as not finite": [r for r in records if r.skipped_steps],
        "damaged samples were replaced": [r for r in records if r.damaged_samples],
    }.items():
        if chosen:
            yield f"{text}: {_listed([r.id for r in chosen])}"


def _one_run_for_several(cells: Sequence[CellConfig]) -> Iterator[str]:
    shared: dict[tuple[Science, Science | None], list[str]] = {}
    for each in cells:
        shared.setdefault((each.science, each.origin), []).append(each.cell.name)
    for names in shared.values():
        if len(names) > 1:
            yield f"one run stands in {len(names)} cells, the same at this scale: {', '.join(names)}"


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
