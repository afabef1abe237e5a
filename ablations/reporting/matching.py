"""Which cell of which table a record belongs to: decided by its science settings, not by who started it."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ablations.reporting.cells import CellConfig, CellConfigs, Science, overrides_of
from ablations.spec import Ablation, covered
from pipeline.config.identity import is_run_id
from pipeline.data.loading.sampler import ROUND
from pipeline.data.packing.sources.source import TABLE_2
from pipeline.runs.records import Record


class TableCell(NamedTuple):
    ablation: str
    protocol: str  # "": the scale's own; else in what a run differs from it
    cell: str


class Match(NamedTuple):
    record: Record
    protocol: str
    cell: CellConfig


@dataclass(frozen=True)
class ComparedRecord:
    record: Record
    science: Science

    @classmethod
    def of(cls, record: Record) -> "ComparedRecord":
        return cls(record, Science.of(record.science))

    @property
    def init(self) -> str:
        return str(self.record.science["recipe"]["init"])


def place(
    known: Mapping[str, ComparedRecord], scale: str, configs: CellConfigs
) -> tuple[dict[TableCell, list[Record]], list[str]]:
    """The records of each cell, one for each seed, and a line for each record that repeats a seed."""
    here = [each for each in known.values() if each.record.scale == scale]
    places: dict[TableCell, list[Record]] = defaultdict(list)
    for ablation, cells in configs.values():
        for match in _matches(here, known, ablation, cells):
            places[TableCell(match.cell.ablation, match.protocol, match.cell.cell.name)].append(match.record)
    return _one_a_seed(_one_data_set(places), known)


def _matches(
    here: Sequence[ComparedRecord],
    known: Mapping[str, ComparedRecord],
    ablation: Ablation,
    cells: Sequence[CellConfig],
) -> list[Match]:
    """Exact matches; and where this ablation was launched with other settings, all runs that have these."""
    alike: dict[Science, list[CellConfig]] = defaultdict(list)
    for cell in cells:
        alike[cell.science].append(cell)
    found, others = [], []
    for each in here:
        exact = [cell for cell in alike.get(each.science, ()) if _right_start(each, cell, known, {})]
        found += [Match(each.record, _data_differences(each, known), cell) for cell in exact]
        if not exact:
            others.append(each)
    name = cells[0].ablation
    if not any(each.record.ablation == name for each in others):
        return found
    near = [match for each in others for match in _near(each, known, ablation, cells)]
    meant = {match.protocol for match in near if match.record.ablation == name}
    return found + [match for match in near if match.protocol in meant]


def _near(
    each: ComparedRecord, known: Mapping[str, ComparedRecord], ablation: Ablation, cells: Sequence[CellConfig]
) -> list[Match]:
    """The cells from which a run differs only in settings that the ablation does not vary."""
    found = []
    for cell in cells:
        change = cell.science.changes(each.science)
        varied = any(covered(name, ablation.varies + ablation.follows) for name in change)
        if change and not varied and _right_start(each, cell, known, change):
            found.append(Match(each.record, " ".join(overrides_of(change)), cell))
    return found


def _right_start(
    each: ComparedRecord, cell: CellConfig, known: Mapping[str, ComparedRecord], change: Mapping[str, Any]
) -> bool:
    """From random weights, or from the run that the cell names, made under the same other settings."""
    if cell.origin is None:
        return not each.init
    parent = known.get(each.init) if is_run_id(each.init) else None
    return parent is not None and not parent.init and cell.origin.changes(parent.science) == change


def _data_differences(each: ComparedRecord, known: Mapping[str, ComparedRecord]) -> str:
    """Where a run at the paper's scale, or the run that it starts from, did not see the whole of Table 2."""
    wrong = _missing_data(each.record)
    if each.init:
        wrong += [f"start: {text}" for text in _missing_data(known[each.init].record)]
    return " ".join(wrong)


def _missing_data(record: Record) -> list[str]:
    """Judged by counts of steps and images, as the fingerprint of the published data is not known here."""
    published = TABLE_2.get(record.science["data"]["name"])
    if record.scale != "paper" or published is None:
        return []
    recipe, views = record.science["recipe"], published.samples["train"]
    if recipe["repeats"] > 1:
        views = views // ROUND * ROUND
    wrong = []
    if record.steps != recipe["epochs"] * (views // recipe["global_batch"]):
        wrong.append(f"steps={record.steps}")
    if record.best.images != published.samples["validation"]:
        wrong.append(f"validation={record.best.images}")
    return wrong


def _one_data_set(places: Mapping[TableCell, list[Record]]) -> dict[TableCell, list[Record]]:
    """The rows of a table must have seen the same data: records of the rarer data go to another table."""

    def where(at: TableCell, record: Record) -> tuple[str, str, str]:
        return at.ablation, at.protocol, record.science["data"]["name"]

    counts: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for at, records in places.items():
        for record in records:
            counts[where(at, record)][record.fingerprint] += 1
    usual = {data: min(count, key=lambda one: (-count[one], one)) for data, count in counts.items()}
    split: dict[TableCell, list[Record]] = defaultdict(list)
    for at, records in places.items():
        for record in records:
            same = record.fingerprint == usual[where(at, record)]
            protocol = at.protocol if same else f"{at.protocol} fingerprint={record.fingerprint[:12]}".strip()
            split[at._replace(protocol=protocol)].append(record)
    return split


def _one_a_seed(
    places: Mapping[TableCell, list[Record]], known: Mapping[str, ComparedRecord]
) -> tuple[dict[TableCell, list[Record]], list[str]]:
    """Seeds repeat only where runs start from different runs; the one from a run of the same seed counts."""

    def rank(record: Record) -> tuple[bool, str]:
        parent = known.get(record.science["recipe"]["init"])
        return parent is not None and parent.record.seed != record.seed, record.id

    kept, problems = {}, []
    for at, records in places.items():
        by_seed: dict[int, Record] = {}
        for record in sorted(records, key=rank):
            first = by_seed.setdefault(record.seed, record)
            if first is not record:
                problems.append(
                    f"record {record.id} repeats seed {record.seed} of {at.ablation}/{at.cell} from other "
                    f"weights; {first.id} counts"
                )
        kept[at] = [by_seed[seed] for seed in sorted(by_seed)]
    return kept, sorted(problems)
