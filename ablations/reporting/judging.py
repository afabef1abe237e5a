"""A table made from the records of its cells: rows in the paper's order, a verdict for each figure, and notes
on what else may have moved the figures.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations, groupby

from ablations.reporting import verdicts
from ablations.reporting.cells import CellConfig, Science
from ablations.reporting.sizes import Size, Sizes, printed, printed_peer
from ablations.reporting.tables import Entry, Ordering, Table, TableRow
from ablations.reporting.verdicts import MEASURED, REPORTED
from ablations.spec import Ablation, Cell, Peer
from pipeline.runs.records import Record

TOP = ("top1", "top5")
# Versions that may move a number; others stand in the records.
VERSIONS = ("torch", "deepspeed")
CellRecords = Mapping[str, Sequence[Record]]  # the records of each cell by its name, one a seed


def judge_table(
    ablation: Ablation,
    cells: Sequence[CellConfig],
    held: CellRecords,
    scale: str,
    protocol: str,
    sizes: Sizes,
) -> Table:
    """The table of an ablation; it is compared with the paper only where the protocol is the paper's."""
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
            rows += [_peer(table, row, sizes) for row in group if isinstance(row, Peer)]
    table = dataclasses.replace(table, rows=tuple(_judge(row, rows, by_name, table) for row in rows))
    return dataclasses.replace(table, orderings=tuple(_orderings(table)))


def is_papers_table(table: Table) -> bool:
    return table.scale == "paper" and not table.protocol


def _row(table: Table, label: str, cells: Sequence[CellConfig], held: CellRecords, sizes: Sizes) -> TableRow:
    entries = [entry for each in cells for entry in _entries(table, each, held.get(each.cell.name, ()))]
    network = cells[0].network
    if network is None:
        # A network of timm: the run itself counted it.
        records = [record for each in cells for record in held.get(each.cell.name, ())]
        size = Size(records[0].params, macs=records[0].macs) if records else Size()
    else:
        size = sizes.of(network)
    papers = is_papers_table(table)
    params, macs = printed(table.number, network) if network is not None and papers else (None, None)
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


def _peer(table: Table, peer: Peer, sizes: Sizes) -> TableRow:
    known = printed_peer(table.number, peer.label)
    size = None if known is None else sizes.of_peer(known)
    return TableRow(
        key=f"{table.name}/{peer.label}",
        label=peer.label,
        entries=tuple(
            Entry("", column, paper=peer.paper.get(column), verdict=REPORTED) for column in table.columns
        ),
        peer=True,
        params=size.params if size else None,
        macs=size.macs if size else None,
        paper_params=known.params if known else None,
        paper_macs=known.flops if known else None,
        notes=() if size and size.params else ("not in timm: its size is as reported",),
    )


def _judge(
    row: TableRow, rows: Sequence[TableRow], cells: Mapping[str, CellConfig], table: Table
) -> TableRow:
    entries = []
    for entry in row.entries:
        if entry.values:
            within = cells[entry.key.partition("/")[2]].cell.within if entry.column == TOP[0] else None
            if within and not table.protocol:
                entry = dataclasses.replace(entry, verdict=verdicts.judge_range(entry.values, within))
            elif entry.delta is None or entry.paper is None:
                entry = dataclasses.replace(entry, verdict=MEASURED)
            else:
                evaluation = verdicts.evaluation_noise(entry.paper, entry.images)
                run = verdicts.run_noise(_seeds(rows, entry.column), evaluation)
                noise = verdicts.difference_noise(evaluation, run, entry.n, 1)
                verdict = verdicts.judge(entry.delta, evaluation, noise)
                entry = dataclasses.replace(entry, noise=noise, verdict=verdict)
        entries.append(entry)
    return dataclasses.replace(row, entries=tuple(entries))


def _seeds(rows: Sequence[TableRow], column: str) -> list[tuple[float, ...]]:
    return [entry.values for row in rows for entry in row.entries if entry.column == column]


def _orderings(table: Table) -> Iterator[Ordering]:
    """Every pair of rows that we run and that the paper orders."""
    for column in table.columns:
        entries = [entry for entry in table.entries if entry.column == column and entry.key]
        for one, other in combinations([entry for entry in entries if entry.paper is not None], 2):
            better, worse = (one, other) if (one.paper or 0) > (other.paper or 0) else (other, one)
            assert better.paper is not None
            assert worse.paper is not None
            if better.paper == worse.paper:
                continue
            paper = round(better.paper - worse.paper, 6)
            if better.mean is None or worse.mean is None:
                yield Ordering(column, better.key, worse.key, paper, None, None, verdicts.NOT_RUN)
                continue
            gap = better.mean - worse.mean
            images = min(better.images, worse.images)
            evaluation = verdicts.evaluation_noise((better.mean + worse.mean) / 2, images)
            run = verdicts.run_noise(_seeds(table.rows, column), evaluation)
            noise = verdicts.difference_noise(evaluation, run, better.n, worse.n)
            verdict = verdicts.judge_order(gap, noise)
            yield Ordering(column, better.key, worse.key, paper, gap, noise, verdict)


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
