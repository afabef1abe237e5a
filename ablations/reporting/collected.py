"""Records put into the tables of a scale, and what does not belong into one named."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ablations.reporting.asked import Science, asked
from ablations.reporting.judged import judged
from ablations.reporting.placing import place
from ablations.reporting.sizes import sizes
from ablations.reporting.tables import Table
from pipeline import records
from pipeline.config import choices
from pipeline.errors import unknown_name
from pipeline.records import Record
from tnt.config import TNTConfig

SIZES = Path("results/sizes.json")


@dataclass(frozen=True)
class Collected:
    scale: str
    tables: tuple[Table, ...]
    problems: tuple[str, ...]  # a line for each record that does not count
    others: tuple[str, ...]  # ids of sound records of the scale that belong to no table
    notes: tuple[str, ...]
    records: Mapping[str, Record]  # all sound ones, by id


def collect(
    directory: Path | str, scale: str = "paper", *, counted: Path = SIZES, refresh: bool = False
) -> Collected:
    """A table for each ablation of the scale, and one more for each other protocol under which it was run."""
    if scale not in choices("scale"):
        raise unknown_name("scale", scale, choices("scale"))
    found, problems = records.read_all(directory)
    sciences = {record.id: Science.of(record.science) for record in found}
    wanted = asked(scale)
    places, repeated = place([record for record in found if record.scale == scale], sciences, wanted)
    networks = [each.config.model.network for _, cells in wanted.values() for each in cells]
    known = sizes([network for network in networks if isinstance(network, TNTConfig)], counted, refresh)
    tables = []
    for name, (ablation, cells) in wanted.items():
        for protocol in ["", *sorted({at.protocol for at in places if at.ablation == name} - {""})]:
            held = {at.cell: places[at] for at in places if at[:2] == (name, protocol)}
            tables.append(judged(ablation, cells, held, scale, protocol, known))
    used = {id for table in tables for entry in table.entries for id in entry.records}
    return Collected(
        scale,
        tuple(tables),
        (*problems, *repeated),
        tuple(record.id for record in found if record.scale == scale and record.id not in used),
        known.notes,
        {record.id: record for record in found},
    )
