"""Puts records into the tables of a scale, and lists those that belong to none."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablations.reporting.anchors import anchor_tables, measured_peers
from ablations.reporting.cells import CellConfigs, cells_of
from ablations.reporting.judging.table import judge_table
from ablations.reporting.matching import ComparedRecord, place
from ablations.reporting.settings import SettingTable, setting_tables
from ablations.reporting.sizes import KEPT, Sizes, sizes
from ablations.reporting.tables import Entry, Table
from pipeline.config.overrides import choices
from pipeline.errors import unknown_name
from pipeline.files import sha256
from pipeline.runs import audits, evaluations, records
from pipeline.runs.audits import Audit
from pipeline.runs.evaluations import Evaluation
from pipeline.runs.records import Record
from tnt.untrusted.reading import BadFile


@dataclass(frozen=True)
class Report:
    scale: str
    tables: tuple[Table, ...]
    problems: tuple[str, ...]  # a line for each record that does not count, or whose audit has failed
    settings: tuple[SettingTable, ...]  # at the paper's scale: Tables 1 to 3
    others: tuple[str, ...]  # ids of sound records of the scale that belong to no table
    notes: tuple[str, ...]
    records: Mapping[str, Record]  # all that count, by id
    audits: Mapping[str, Sequence[Audit]]  # of them, by id
    configs: CellConfigs
    evaluations: tuple[Evaluation, ...]  # of published weights


def collect(
    directories: Sequence[Path | str], scale: str = "paper", *, counted: Path = KEPT, refresh: bool = False
) -> Report:
    """A table for each ablation of the scale, and one more for each other protocol under which it was run.

    Where two folders hold records of one run, the later folder's counts.
    """
    if scale not in choices("scale"):
        raise unknown_name("scale", scale, choices("scale"))
    configs = cells_of(scale)
    known, problems = _read(directories)
    places, repeated = place(known, scale, configs)
    networks = [each.network for _, cells in configs.values() for each in cells if each.network is not None]
    evaluated, wrong = _evaluations(directories)
    counts = sizes(networks, counted, refresh)
    tables = []
    for name, (ablation, cells) in configs.items():
        for protocol in ["", *sorted({at.protocol for at in places if at.ablation == name} - {""})]:
            held = {at.cell: places[at] for at in places if at[:2] == (name, protocol)}
            peers = measured_peers(evaluated) if ablation.table == "4" else {}
            table = judge_table(ablation, cells, held, scale, protocol, counts, published=peers)
            tables.append(table)
    tables += anchor_tables(evaluated) if scale == "paper" else []
    told, failed = _audits(known, directories)
    sound = {id for id, each in told.items() if not any(one.fault for one in each)}
    tables = [_audited(table, sound) for table in tables]
    used = {id for table in tables for entry in table.entries for id in entry.records}
    return Report(
        scale=scale,
        tables=tuple(tables),
        problems=(*problems, *wrong, *repeated, *failed),
        settings=_settings(configs, counts) if scale == "paper" else (),
        others=tuple(id for id, each in known.items() if each.record.scale == scale and id not in used),
        notes=(*counts.notes, *_absent(directories)),
        records={id: each.record for id, each in known.items()},
        audits=told,
        configs=configs,
        evaluations=tuple(evaluated),
    )


def _settings(configs: CellConfigs, counts: Sizes) -> tuple[SettingTable, ...]:
    every = [each for _, cells in configs.values() for each in cells]
    pretraining = next(each for each in every if each.origin is None)
    return setting_tables(pretraining.config, every, counts)


def _read(directories: Sequence[Path | str]) -> tuple[dict[str, ComparedRecord], list[str]]:
    """The records that count, by id, and a line for each file that does not."""
    known: dict[str, ComparedRecord] = {}
    problems: list[str] = []
    for directory in directories:
        found, wrong = records.read_all(directory)
        known |= {record.id: ComparedRecord.of(record) for record in found}
        problems += wrong
    return known, problems


def _evaluations(directories: Sequence[Path | str]) -> tuple[list[Evaluation], list[str]]:
    folders = dict.fromkeys(map(evaluations.folder_of, directories))
    read = [evaluations.read_all(folder) for folder in folders]
    return [each for found, _ in read for each in found], [line for _, lines in read for line in lines]


def _audits(
    known: Iterable[str], directories: Sequence[Path | str]
) -> tuple[dict[str, list[Audit]], list[str]]:
    """Those about the records as they are, and a line for each that found another run, or cannot be read."""
    found: dict[str, list[Audit]] = {}
    problems = []
    for id in known:
        folder = records.folder_of(id, directories)
        try:
            told = audits.read(audits.path_of(folder, id))
        except BadFile as error:
            problems.append(str(error))
            continue
        if told:
            digest = sha256(records.record_path(folder, id))
            found[id] = [one for one in told if one.record_sha256 == digest]
            problems += [f"the audit of {id}: {one}" for one in found[id] if one.fault]
    return {id: each for id, each in found.items() if each}, problems


def _audited(table: Table, sound: set[str]) -> Table:
    """With the number of runs whose audits found nothing, in each entry."""

    def counted(entry: Entry) -> Entry:
        return dataclasses.replace(entry, audited=len(sound.intersection(entry.records)))

    rows = [dataclasses.replace(row, entries=tuple(map(counted, row.entries))) for row in table.rows]
    return dataclasses.replace(table, rows=tuple(rows))


def _absent(directories: Sequence[Path | str]) -> list[str]:
    if any(Path(directory).is_dir() for directory in directories):
        return []
    return [f"there is no {' and no '.join(map(str, directories))} yet"]
