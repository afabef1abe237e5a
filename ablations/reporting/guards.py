"""What a reader must know before believing a table: what else differs, what went wrong."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from ablations.reporting.cells import Asked, Science
from pipeline.runs.records import Record

# Versions that may move a number; others stand in the records.
VERSIONS = ("torch", "deepspeed")


def notes(cells: Sequence[Asked], held: Mapping[str, Sequence[Record]]) -> Iterator[str]:
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


def _one_run_for_several(cells: Sequence[Asked]) -> Iterator[str]:
    shared: dict[tuple[Science, Science | None], list[str]] = {}
    for each in cells:
        shared.setdefault((each.science, each.origin), []).append(each.cell.name)
    for names in shared.values():
        if len(names) > 1:
            yield f"one run stands in {len(names)} cells, the same at this scale: {', '.join(names)}"


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
