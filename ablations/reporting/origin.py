"""Where a number comes from: its runs, the code, data and jobs that made them, and the command that repeats
them.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence

from ablations.reporting.cells import CellConfig, Science, overrides_of, scale_overrides
from ablations.reporting.collect import Report
from ablations.reporting.judging.verdicts import SAME_FIGURE
from ablations.reporting.tables import (
    COLUMNS,
    Effect,
    Entry,
    Table,
    TableRow,
    delta,
    heading,
    ours,
    said,
    with_half,
)
from pipeline.config.identity import science
from pipeline.config.overrides import compose
from pipeline.errors import UserError, unknown_name
from pipeline.runs.records import Measures, Record
from pipeline.runs.usage import Usage

LAUNCH = "python pipeline/launch.py"


def explain(report: Report, key: str, head: str = "") -> list[str]:
    """Lines on a cell, found by its key (table6/4 or inner_heads/4), its row's key, or a run's id.

    `head` is the current commit: for a run of another commit, a checkout comes before the command.
    """
    lines: list[str] = []
    for table in report.tables:
        for row in table.rows:
            entries = [entry for entry in row.entries if _meant(table, row, entry, key)]
            if not entries or (table.protocol and not any(entry.values for entry in entries)):
                continue
            lines += [*([""] if lines else []), f"{heading(table)}: {row.label}"]
            lines += [f"  {arithmetic(entry)}" for entry in entries]
            lines += [f"  {line}" for line in effect_lines(table, row)]
            if row.peer:
                here = any(entry.values for entry in entries)
                lines.append(f"  reported by the paper; nothing here {'trains' if here else 'runs'} it")
            for cell in dict.fromkeys(entry.key for entry in entries if entry.key):
                lines += _origins(report, table, row, cell, head)
    if not lines and key in report.records:
        lines = [f"run {key} belongs to no table of scale {report.scale}"]
        lines += _aligned([*provenance(report.records[key]), *audited(report, key)])
    if not lines:
        keys = [entry.key for table in report.tables for entry in table.entries if entry.key]
        raise unknown_name("cell", key, dict.fromkeys(keys))
    return lines


def runs_of(report: Report, key: str) -> list[str]:
    """Of a cell or a row, found as by `explain`; or the one whose id it is."""
    if key in report.records:
        return [key]
    rows = [(table, row) for table in report.tables for row in table.rows]
    meant = [entry for table, row in rows for entry in row.entries if _meant(table, row, entry, key)]
    found = dict.fromkeys(id for entry in meant for id in entry.records)
    if not found:
        explain(report, key)  # refuses a name that is none
        raise UserError(f"{key} has no runs yet")
    return list(found)


def effect_lines(table: Table, row: TableRow) -> list[str]:
    """The pairs of rows in which a row stands."""
    labels = {entry.key: each.label for each in table.rows for entry in each.entries}
    keys = {entry.key for entry in row.entries if entry.key}
    return [effect_line(each, labels) for each in table.effects if keys & {each.ahead, each.behind}]


def provenance(record: Record) -> list[tuple[str, str]]:
    """A record as names and values, to be read by people."""
    lines = [
        ("run", record.id),
        ("seed", str(record.seed)),
        ("commit", record.commit + (", with changes that it does not hold" if record.dirty else "")),
        ("data", f"{record.science['data']['name']}, fingerprint {record.fingerprint}"),
        ("weights", f"{record.exported}, SHA-256 {record.weights_sha256}"),
        ("measured", "; ".join(_measured(record))),
        ("jobs", f"{', '.join(record.jobs) or 'none'}; attempts {record.attempts}"),
        ("devices", f"{record.world} × {record.device}; hosts {', '.join(record.hosts)}"),
        ("time", f"{record.started} to {record.ended}; {record.device_hours:g} device-hours"),
        *([("used", _used(record.usage))] if record.usage else []),
        ("speed", f"{record.steps:,} steps, {record.images_per_second:,.0f} images/s"),
        ("versions", ", ".join(f"{name} {value}" for name, value in sorted(record.versions.items()))),
    ]
    if init := record.science["recipe"]["init"]:
        lines.append(("starts from", init))
    if record.skipped_steps or record.damaged_samples:
        faults = f"{record.skipped_steps} steps skipped, {record.damaged_samples} samples replaced"
        lines.append(("faults", faults))
    return [*lines, *(("event", event) for event in record.events)]


def audited(report: Report, id: str) -> list[tuple[str, str]]:
    """What the replays of a run's parts came to, as `provenance`."""
    return [("audited", str(audit)) for audit in report.audits.get(id, ())]


def settings(cell: CellConfig, record: Record | None = None) -> list[str]:
    """The settings in which a cell, or one of its runs, differs from the scale's defaults."""
    scale = cell.config.scale
    plain = compose([] if scale == "paper" else [f"scale={scale}"])
    held = cell.science if record is None else Science.of(record.science)
    return overrides_of(Science.of(science(plain)).changes(held))


def command(report: Report, cell: CellConfig, seeds: Sequence[int], record: Record | None = None) -> str:
    """The command that starts a cell's runs, or repeats a record's run with its own settings."""
    ablation, _ = report.configs[cell.ablation]
    change = {} if record is None else cell.science.changes(Science.of(record.science))
    change = {name: value for name, value in change.items() if not name.startswith("revisions.")}
    words = [f"ablation={cell.ablation}", f"cells={cell.cell.name}", f"seeds={','.join(map(str, seeds))}"]
    words += [*scale_overrides(ablation, report.scale), *overrides_of(change)]
    return " ".join([LAUNCH, *map(shlex.quote, words)])


def cell_of(report: Report, table: Table, key: str) -> CellConfig:
    _, cells = report.configs[table.ablation]
    return next(cell for cell in cells if f"{table.name}/{cell.cell.name}" == key)


def _meant(table: Table, row: TableRow, entry: Entry, key: str) -> bool:
    names = {entry.key, entry.key.replace(f"{table.name}/", f"{table.ablation}/", 1)}
    names |= {row.key, row.key.replace(f"{table.name}/", f"{table.ablation}/", 1)}
    return key in names or key in entry.records


def arithmetic(entry: Entry) -> str:
    """An entry as one line, with the numbers that its verdict follows from."""
    parts = [COLUMNS.get(entry.column, entry.column) + ":"]
    if entry.paper is not None:
        parts.append(f"paper {entry.paper:.1f},")
    if entry.official is not None:
        parts.append(f"later {entry.official:.1f},")
    if entry.mean is not None:
        parts.append(f"ours {ours(entry)} on {entry.images:,} images,")
    if entry.delta is not None:
        judged = f", equivalent within {SAME_FIGURE:g}" if entry.key else ""
        parts.append(f"Δ {delta(entry)}{judged}:")
    parts.append(said(entry))
    if entry.later_delta is not None:
        parts.append(
            f"(Δ to the later figure {with_half(entry.later_delta, entry.later_half)}: {entry.later_verdict})"
        )
    return " ".join(parts)


def effect_line(effect: Effect, labels: Mapping[str, str]) -> str:
    """A pair of rows as one line."""
    paper = "" if effect.paper is None else f"paper {effect.paper:+.1f}, "
    ours = f"ours {with_half(effect.ours, effect.half)}, " if effect.ours is not None else ""
    names = f"{labels[effect.ahead]} − {labels[effect.behind]}"
    return f"{COLUMNS.get(effect.column, effect.column)}, {names}: {paper}{ours}{said(effect)}"


def _origins(report: Report, table: Table, row: TableRow, key: str, head: str) -> Iterator[str]:
    cell = cell_of(report, table, key)
    held = next(entry for entry in row.entries if entry.key == key)
    if not held.records:
        yield f"  settings   {' '.join(settings(cell)) or 'none: the plain run'}"
        yield f"  to run it  {command(report, cell, [0])}"
    for id in held.records:
        record = report.records[id]
        lines = [
            *provenance(record),
            *audited(report, id),
            ("settings", " ".join(settings(cell, record)) or "none: the plain run"),
            ("again", command(report, cell, [record.seed], record)),
        ]
        if head and record.commit != head:
            lines.insert(-1, ("of code", f"git checkout {record.commit}"))
        yield ""
        yield from _aligned(lines)


def _aligned(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max(len(name) for name, _ in lines)
    return (f"  {name.ljust(width)}  {value}" for name, value in lines)


def _used(usage: Usage) -> str:
    said = [f"{usage.gpu_hours:.4g} device-hours by {usage.hours_by}"]
    said += [f"{usage.kwh:.4g} kWh by {usage.energy_by}"] if usage.kwh is not None else []
    said += [f"{usage.cost:,.2f} at the price of that time"] if usage.cost is not None else []
    return ", ".join(said)


def _measured(record: Record) -> Iterator[str]:
    def said(name: str, one: Measures) -> str:
        return f"{name} top-1 {one.top1:.3f}, top-5 {one.top5:.3f}, loss {one.loss:.4f}"

    yield said("raw", record.raw)
    if record.ema is not None:
        yield said("average", record.ema)
