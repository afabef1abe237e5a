"""Which cell of which table a record belongs to: by its science alone, not by what it was asked for."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ablations.reporting.asked import Asked, Science, differences
from ablations.spec import Ablation, covered
from pipeline.identity import is_run_id
from pipeline.records import Record
from pipeline.sampler import ROUND
from pipeline.sources import TABLE_2


Wanted = Mapping[str, tuple[Ablation, list[Asked]]]


class Place(NamedTuple):
    ablation: str
    protocol: str  # "": the scale's own; else in what a run differs from it
    cell: str


@dataclass(frozen=True)
class Known:
    record: Record
    science: Science
    init: str


def place(
    found: Sequence[Record],
    parents: Mapping[str, Science],
    wanted: Mapping[str, tuple[Ablation, list[Asked]]],
) -> tuple[dict[Place, list[Record]], list[str]]:
    """The records of each cell by seed, and a line for each that stands for a seed twice.

    `parents` are the sciences of runs, by id, whose weights others may start from.
    """
    every = [Known(record, parents[record.id], record.science["recipe"]["init"]) for record in found]
    places: dict[Place, list[Record]] = defaultdict(list)
    for ablation, cells in wanted.values():
        for each, protocol, cell in _matches(every, parents, ablation, cells):
            places[Place(cell.ablation, protocol, cell.cell.name)].append(each.record)
    return _one_a_seed(_one_data_set(places))


def _matches(
    every: Sequence[Known], parents: Mapping[str, Science], ablation: Ablation, cells: Sequence[Asked]
) -> list[tuple[Known, str, Asked]]:
    """Exact ones; and where this ablation was asked for with other settings, all runs with these."""
    by_key: dict[str, list[Asked]] = defaultdict(list)
    for cell in cells:
        by_key[cell.science.key].append(cell)
    allowed = ablation.varies + ablation.follows
    found, others = [], []
    for each in every:
        exact = [
            cell for cell in by_key.get(each.science.key, ()) if _starts_rightly(each, cell, parents, {})
        ]
        found += [(each, _unlike_the_papers(each.record), cell) for cell in exact]
        if not exact:
            others.append(each)
    if not any(each.record.ablation == cell.ablation for each in others for cell in cells[:1]):
        return found
    near = []
    for each in others:
        for cell in cells:
            change = differences(cell.science, each.science)
            if not any(covered(name, allowed) for name in change) and _starts_rightly(
                each, cell, parents, change
            ):
                near.append((each, _said(change), cell))
    anchors = {protocol for each, protocol, cell in near if each.record.ablation == cell.ablation}
    return found + [match for match in near if match[1] in anchors]


def _starts_rightly(
    each: Known, cell: Asked, parents: Mapping[str, Science], change: Mapping[str, Any]
) -> bool:
    """From random weights, or from the run that the cell names, made under the same other settings."""
    if cell.origin is None:
        return not each.init
    parent = parents.get(each.init) if is_run_id(each.init) else None
    return parent is not None and differences(cell.origin, parent) == change


def _said(change: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(change.items()))


def _unlike_the_papers(record: Record) -> str:
    """What a run at the paper's scale saw, where that is not Table 2's data; its fingerprint cannot tell."""
    data = record.science["data"]
    published = TABLE_2.get(data["name"])
    if record.scale != "paper" or published is None:
        return ""
    wrong = []
    if record.best.images != published.samples["validation"]:
        wrong.append(f"validation images={record.best.images}")
    recipe = record.science["recipe"]
    views = published.samples["train"]
    if recipe["repeats"] > 1:
        views = views // ROUND * ROUND
    if record.steps != recipe["epochs"] * (views // recipe["global_batch"]):
        wrong.append(f"steps={record.steps}")
    return " ".join(wrong)


def _one_data_set(places: Mapping[Place, list[Record]]) -> dict[Place, list[Record]]:
    """Rows of a table saw the same bytes: those of the rarer data stand in another table."""
    counts: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for (ablation, protocol, _), records in places.items():
        for record in records:
            counts[ablation, protocol, record.science["data"]["name"]][record.fingerprint] += 1
    usual = {where: min(count, key=lambda one: (-count[one], one)) for where, count in counts.items()}
    split: dict[Place, list[Record]] = defaultdict(list)
    for place, records in places.items():
        for record in records:
            name = record.science["data"]["name"]
            same = record.fingerprint == usual[place.ablation, place.protocol, name]
            other = f"{place.protocol} data {record.fingerprint[:12]}".strip()
            split[place if same else place._replace(protocol=other)].append(record)
    return split


def _one_a_seed(places: Mapping[Place, list[Record]]) -> tuple[dict[Place, list[Record]], list[str]]:
    """Only runs that start from several runs can repeat a seed; the first id counts."""
    kept, problems = {}, []
    for place, records in places.items():
        by_seed: dict[int, Record] = {}
        for record in sorted(records, key=lambda record: record.id):
            first = by_seed.setdefault(record.seed, record)
            if first is not record:
                problems.append(
                    f"{record.id} repeats seed {record.seed} of {place.ablation}/{place.cell} "
                    f"from other weights; {first.id} counts"
                )
        kept[place] = [by_seed[seed] for seed in sorted(by_seed)]
    return kept, sorted(problems)
