"""Puts records into the tables of a scale, and lists those that belong to none."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ablations.reporting.cells import CellConfigs, Science, cells_of
from ablations.reporting.judging import judge_table
from ablations.reporting.matching import ComparedRecord, place
from ablations.reporting.settings import SettingTable, setting_tables
from ablations.reporting.sizes import KEPT, Sizes, sizes
from ablations.reporting.tables import Table
from pipeline.config.overrides import choices
from pipeline.config.science import TIMM, TimmConfig
from pipeline.errors import unknown_name
from pipeline.runs import records
from pipeline.runs.records import Record

TIMM_SETTINGS = {"model.name", *(f"model.{field.name}" for field in dataclasses.fields(TimmConfig))}


@dataclass(frozen=True)
class Report:
    scale: str
    tables: tuple[Table, ...]
    problems: tuple[str, ...]  # a line for each record that does not count
    settings: tuple[SettingTable, ...]  # at the paper's scale: Tables 1 to 3
    others: tuple[str, ...]  # ids of sound records of the scale that belong to no table
    notes: tuple[str, ...]
    records: Mapping[str, Record]  # all that count, by id
    configs: CellConfigs


def collect(
    directory: Path | str, scale: str = "paper", *, counted: Path = KEPT, refresh: bool = False
) -> Report:
    """A table for each ablation of the scale, and one more for each other protocol under which it was run."""
    if scale not in choices("scale"):
        raise unknown_name("scale", scale, choices("scale"))
    configs = cells_of(scale)
    known, problems = _read(Path(directory), configs)
    places, repeated = place(known, scale, configs)
    networks = [each.network for _, cells in configs.values() for each in cells if each.network is not None]
    counts = sizes(networks, counted, refresh)
    tables = []
    for name, (ablation, cells) in configs.items():
        for protocol in ["", *sorted({at.protocol for at in places if at.ablation == name} - {""})]:
            held = {at.cell: places[at] for at in places if at[:2] == (name, protocol)}
            tables.append(judge_table(ablation, cells, held, scale, protocol, counts))
    used = {id for table in tables for entry in table.entries for id in entry.records}
    return Report(
        scale=scale,
        tables=tuple(tables),
        problems=(*problems, *repeated),
        settings=_settings(configs, counts) if scale == "paper" else (),
        others=tuple(id for id, each in known.items() if each.record.scale == scale and id not in used),
        notes=counts.notes if Path(directory).is_dir() else (*counts.notes, f"there is no {directory} yet"),
        records={id: each.record for id, each in known.items()},
        configs=configs,
    )


def _settings(configs: CellConfigs, counts: Sizes) -> tuple[SettingTable, ...]:
    every = [each for _, cells in configs.values() for each in cells]
    pretraining = next(each for each in every if each.origin is None)
    return setting_tables(pretraining.config, every, counts)


def _read(directory: Path, configs: CellConfigs) -> tuple[dict[str, ComparedRecord], list[str]]:
    """The records that count, by id; a record with other settings than this code has is a problem."""
    found, problems = records.read_all(directory)
    cells = next(cells for _, cells in configs.values())
    ours = cells[0].science.names
    known = {}
    for record in found:
        each = ComparedRecord.of(record)
        wrong = _setting_differences(each.science, ours)
        if wrong:
            problems.append(f"record {record.id} was made by other code: {wrong}; run it again")
        else:
            known[record.id] = each
    return known, problems


def _setting_differences(science: Science, ours: set[str]) -> str:
    """How the names of settings differ from those of a config made now; networks of timm have fewer."""
    names = science.names
    if any(name == "model.name" and str(value).startswith(TIMM) for name, value in science.settings):
        ours = {name for name in ours if not name.startswith("model.")} | TIMM_SETTINGS
    if names == ours:
        return ""
    parts = [f"it has no {name}" for name in sorted(ours - names)]
    parts += [f"{name} is unknown" for name in sorted(names - ours)]
    return ", ".join(parts)
