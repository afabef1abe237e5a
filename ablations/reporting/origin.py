"""What leads back from a figure: the runs behind it, the code, data and jobs that made them, and the command
that makes them again.
"""

import shlex
from collections.abc import Iterator, Sequence

from ablations.reporting.cells import Asked, Science, overrides_of, scale_overrides
from ablations.reporting.collect import Collected
from ablations.reporting.tables import Entry, Row, Table
from ablations.reporting.text.grid import COLUMNS, delta, heading, ours
from ablations.reporting.verdicts import FACTOR, evaluation_noise
from pipeline.config.identity import science
from pipeline.config.overrides import compose
from pipeline.errors import unknown_name
from pipeline.runs.records import Measures, Record

LAUNCH = "python pipeline/launch.py"


def why(collected: Collected, key: str, head: str = "") -> list[str]:
    """All that is known of a cell, by its key as table6/4 or inner_heads/4, by its row's, or by a run's id.

    `head` is the commit that the code is at: an older run's command begins with a checkout.
    """
    lines: list[str] = []
    for table in collected.tables:
        for row in table.rows:
            entries = [entry for entry in row.entries if _meant(table, row, entry, key)]
            if not entries or (table.protocol and not any(entry.values for entry in entries)):
                continue
            lines += [*([""] if lines else []), f"{heading(table)}: {row.label}"]
            lines += [f"  {arithmetic(entry)}" for entry in entries]
            if row.peer:
                lines.append("  reported by the paper; nothing here runs it")
            for cell in dict.fromkeys(entry.key for entry in entries if entry.key):
                lines += _origins(collected, table, row, cell, head)
    if not lines and key in collected.records:
        lines = [f"run {key} belongs to no table of scale {collected.scale}"]
        lines += _aligned(provenance(collected.records[key]))
    if not lines:
        keys = [entry.key for table in collected.tables for entry in table.entries if entry.key]
        raise unknown_name("cell", key, dict.fromkeys(keys))
    return lines


def provenance(record: Record) -> list[tuple[str, str]]:
    """A record as names and values for people."""
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
        ("speed", f"{record.steps:,} steps, {record.images_per_second:,.0f} images/s"),
        ("versions", ", ".join(f"{name} {value}" for name, value in sorted(record.versions.items()))),
    ]
    if init := record.science["recipe"]["init"]:
        lines.append(("starts from", init))
    if record.skipped_steps or record.damaged_samples:
        faults = f"{record.skipped_steps} steps skipped, {record.damaged_samples} samples replaced"
        lines.append(("faults", faults))
    return [*lines, *(("event", event) for event in record.events)]


def settings(cell: Asked, record: Record | None = None) -> list[str]:
    """In what a cell, or one of its runs, differs from the scale's plain `train.py`."""
    scale = cell.config.scale
    plain = compose([] if scale == "paper" else [f"scale={scale}"])
    held = cell.science if record is None else Science.of(record.science)
    return overrides_of(Science.of(science(plain)).changes(held))


def command(collected: Collected, cell: Asked, seeds: Sequence[int], record: Record | None = None) -> str:
    """What makes a cell's runs, or makes them again; a record's other settings are set again."""
    ablation, _ = collected.wanted[cell.ablation]
    change = {} if record is None else cell.science.changes(Science.of(record.science))
    words = [f"ablation={cell.ablation}", f"cells={cell.cell.name}", f"seeds={','.join(map(str, seeds))}"]
    words += [*scale_overrides(ablation, collected.scale), *overrides_of(change)]
    return " ".join([LAUNCH, *map(shlex.quote, words)])


def cell_of(collected: Collected, table: Table, key: str) -> Asked:
    _, cells = collected.wanted[table.ablation]
    return next(cell for cell in cells if f"{table.name}/{cell.cell.name}" == key)


def _meant(table: Table, row: Row, entry: Entry, key: str) -> bool:
    names = {entry.key, entry.key.replace(f"{table.name}/", f"{table.ablation}/", 1)}
    names |= {row.key, row.key.replace(f"{table.name}/", f"{table.ablation}/", 1)}
    return key in names or key in entry.records


def arithmetic(entry: Entry) -> str:
    """An entry in a line, with the arithmetic of its verdict."""
    parts = [COLUMNS.get(entry.column, entry.column) + ":"]
    if entry.paper is not None:
        parts.append(f"paper {entry.paper:.1f},")
    if entry.official is not None:
        parts.append(f"later {entry.official:.1f},")
    if entry.mean is not None:
        parts.append(f"ours {ours(entry)} on {entry.images:,} images,")
    if entry.noise is not None and entry.paper is not None:
        evaluation = FACTOR * evaluation_noise(entry.paper, entry.images)
        parts.append(f"Δ {delta(entry)}, 2e {evaluation:.2f}, 2σ {FACTOR * entry.noise:.2f}:")
    return " ".join([*parts, entry.verdict])


def _origins(collected: Collected, table: Table, row: Row, key: str, head: str) -> Iterator[str]:
    cell = cell_of(collected, table, key)
    held = next(entry for entry in row.entries if entry.key == key)
    if not held.records:
        yield f"  settings   {' '.join(settings(cell)) or 'none: the plain run'}"
        yield f"  to run it  {command(collected, cell, [0])}"
    for id in held.records:
        record = collected.records[id]
        lines = [
            *provenance(record),
            ("settings", " ".join(settings(cell, record)) or "none: the plain run"),
            ("again", command(collected, cell, [record.seed], record)),
        ]
        if head and record.commit != head:
            lines.insert(-1, ("of code", f"git checkout {record.commit}"))
        yield ""
        yield from _aligned(lines)


def _aligned(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max(len(name) for name, _ in lines)
    return (f"  {name.ljust(width)}  {value}" for name, value in lines)


def _measured(record: Record) -> Iterator[str]:
    def said(name: str, one: Measures) -> str:
        return f"{name} top-1 {one.top1:.3f}, top-5 {one.top5:.3f}, loss {one.loss:.4f}"

    yield said("raw", record.raw)
    if record.ema is not None:
        yield said("average", record.ema)
