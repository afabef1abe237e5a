"""A table out of the records of its cells: the rows in the paper's order, each figure judged."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, groupby

from ablations.reporting import verdicts
from ablations.reporting.cells import Asked
from ablations.reporting.guards import notes
from ablations.reporting.sizes import Size, Sizes, printed, printed_peer
from ablations.reporting.tables import Entry, Ordering, Row, Table
from ablations.reporting.verdicts import MEASURED, REPORTED
from ablations.spec import Ablation, Cell, Peer
from pipeline.runs.records import Record

TOP = ("top1", "top5")
Held = Mapping[str, Sequence[Record]]  # the records of each cell by its name, one a seed


def judged(
    ablation: Ablation, cells: Sequence[Asked], held: Held, scale: str, protocol: str, sizes: Sizes
) -> Table:
    """Beside the paper's figures only where the protocol is the paper's."""
    table = Table(
        ablation=cells[0].ablation,
        number=ablation.table,
        title=ablation.title,
        why=ablation.why,
        scale=scale,
        columns=tuple(dict.fromkeys(cell.column for cell in ablation.cells if cell.column)) or TOP,
        rows=(),
        protocol=protocol,
        notes=tuple(notes(cells, held)),
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
        if table_is_the_papers(table):
            rows += [_peer(table, row, sizes) for row in group if isinstance(row, Peer)]
    table = dataclasses.replace(table, rows=tuple(_judge(row, rows, by_name, table) for row in rows))
    return dataclasses.replace(table, orderings=tuple(_orderings(table)))


def table_is_the_papers(table: Table) -> bool:
    return table.scale == "paper" and not table.protocol


def _row(table: Table, label: str, cells: Sequence[Asked], held: Held, sizes: Sizes) -> Row:
    entries = [entry for each in cells for entry in _entries(table, each, held.get(each.cell.name, ()))]
    network = cells[0].network
    if network is None:
        # timm's own, which the run itself counted.
        records = [record for each in cells for record in held.get(each.cell.name, ())]
        size = Size(records[0].params, macs=records[0].macs) if records else Size()
    else:
        size = sizes.of(network)
    papers = table_is_the_papers(table)
    params, macs = printed(table.number, network) if network is not None and papers else (None, None)
    name, column = cells[0].cell.name, cells[0].cell.column
    return Row(
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


def _entries(table: Table, each: Asked, held: Sequence[Record]) -> Iterator[Entry]:
    cell = each.cell
    for column in [cell.column] if cell.column else TOP:
        measure = "top1" if cell.column else column
        is_papers = table_is_the_papers(table)
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


def _peer(table: Table, peer: Peer, sizes: Sizes) -> Row:
    known = printed_peer(table.number, peer.label)
    size = None if known is None else sizes.of_peer(known)
    return Row(
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


def _judge(row: Row, rows: Sequence[Row], cells: Mapping[str, Asked], table: Table) -> Row:
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


def _seeds(rows: Sequence[Row], column: str) -> list[tuple[float, ...]]:
    return [entry.values for row in rows for entry in row.entries if entry.column == column]


def _orderings(table: Table) -> Iterator[Ordering]:
    """Every pair of our rows that the paper orders."""
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
