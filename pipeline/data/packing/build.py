"""Builds a set of shards from any work that fills them: in parallel, resumable after a kill, published whole.

Everything grows in `OUT/.make` and is renamed into OUT when the last shard is done, so OUT never holds half a
set. A shard that is finished has its journal (size, hash, rows) beside it there and is not written again.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data.packing.fork_pool import Advance, Crew, cores
from pipeline.data.packing.shard_plan import Plan, PlannedShard
from pipeline.data.packing.shard_rows import Journal, Notes, RowBook, ShardRows, assemble, shard_rows
from pipeline.data.shards.manifest import Manifest
from pipeline.data.shards.tar import ArchiveWriter
from pipeline.data.shards.timm_info import read_info, write_info
from pipeline.errors import UserError, WorkFailed
from pipeline.files import PARTIAL, flush_directory, publish_bytes, published
from pipeline.terminal import progress

NAMED = 10  # how many damaged files an error lists

# Writes one shard's members and notes their rows; runs in a worker process.
Fill = Callable[[PlannedShard, ArchiveWriter, RowBook, Advance], None]


@dataclass
class Outcome:
    manifests: dict[str, Manifest]
    complete_before: bool = False  # nothing was left to do
    flawed: Notes = field(default_factory=dict)  # kept, though decoders warn of them
    skipped: Notes = field(default_factory=dict)  # damaged and left out
    turned: int = 0  # images with an EXIF rotation, which is not applied


class DamagedImages(Exception):
    """A shard's images that cannot be read."""

    def __init__(self, notes: Notes) -> None:
        super().__init__(notes)
        self.notes = notes


def build(
    out: Path,
    plan: Plan,
    classes: tuple[str, ...],
    fill: Fill,
    *,
    what: str,
    workers: int = 0,
    skip_damaged: bool = False,
) -> Outcome:
    """Write the set, or as much of it as is missing; nothing appears in OUT before all of it is right."""
    work = out / ".make"
    with _alone(work):
        if complete := _claim(out, work, plan):
            return complete
        _check_space(out, work, plan)
        builder = _Builder(fill, plan.id, out, work, skip_damaged)
        workers = min(workers or cores(), len(plan.shards))
        with Crew(builder, workers) as crew, progress(plan.samples, what) as advance:
            results = dict(crew.run(plan.shards, advance))
        damaged = [one for _, one in sorted(results.items()) if isinstance(one, DamagedImages)]
        if damaged:
            raise _refusal(damaged, work)
        shards = [one for _, one in sorted(results.items()) if isinstance(one, ShardRows)]
        manifests = _publish(out, work, plan, classes, shards)
    return Outcome(
        manifests,
        flawed={key: why for rows in shards for key, why in rows.flawed.items()},
        skipped={key: why for rows in shards for key, why in rows.skipped.items()},
        turned=sum(rows.turned for rows in shards),
    )


@dataclass(frozen=True, eq=False)
class _Builder:
    """Makes one planned shard in a worker process, unless it is there."""

    fill: Fill
    plan_id: str
    out: Path
    work: Path
    skip_damaged: bool

    def __call__(self, planned: PlannedShard, advance: Advance) -> ShardRows | DamagedImages:
        if (rows := self.finished(planned)) is not None:
            advance(len(planned.samples))
            return rows
        try:
            return self.write(planned, advance)
        except DamagedImages as damaged:
            return damaged

    def write(self, planned: PlannedShard, advance: Advance) -> ShardRows:
        book = RowBook()
        with published(self.work / planned.name) as file:
            archive = ArchiveWriter(file)
            self.fill(planned, archive, book, advance)
            archive.close()
            if book.skipped and not self.skip_damaged:
                raise DamagedImages(book.skipped)
            file.flush()
            os.fsync(file.fileno())
            rows = book.close(planned.name, archive.bytes, archive.hash.hexdigest())
            # Before the shard gets its name: a shard under its name always has its journal.
            Journal(self.plan_id, rows).write(journal_path(self.work, planned.name))
        return rows

    def finished(self, planned: PlannedShard) -> ShardRows | None:
        journal = Journal.read(journal_path(self.work, planned.name))
        if journal is None or journal.plan != self.plan_id:
            return None
        if journal.rows.skipped and not self.skip_damaged:
            return None
        for path in (self.work / planned.name, self.out / planned.name):
            if path.exists() and path.stat().st_size == journal.rows.shard.bytes:
                with open(path, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() == journal.rows.shard.sha256:
                        return journal.rows
        return None


def journal_path(work: Path, shard: str) -> Path:
    return work / f"{shard}.journal"


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """One command at a time works on a set; the lock ends with the process, and workers do not inherit it."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(f"another command is writing to {work.parent}; wait for it or end it") from None
        _remove_partial(work)  # of a command that was killed
        try:
            yield
        finally:
            _remove_partial(work)  # of workers that were ended
            if not any(path.name != "lock" for path in work.iterdir()):
                shutil.rmtree(work)


def _remove_partial(work: Path) -> None:
    for path in [*work.glob(f".*{PARTIAL}"), *work.parent.glob(f".*{PARTIAL}")]:
        path.unlink(missing_ok=True)


def _claim(out: Path, work: Path, plan: Plan) -> Outcome | None:
    """OUT is empty, or holds this very plan, half done or done; anything else is refused."""
    plan_file = work / "plan.json"
    if plan_file.exists():
        begun = json.loads(plan_file.read_bytes())
        if begun != plan.facts:
            raise UserError(
                f"{out} holds a set that was begun with another {_difference(begun, plan.facts)}: "
                f"choose another directory, or remove {work} to begin again"
            )
        return None
    if not any(out.glob("*.tar")) and not any(out.glob("*.manifest.json")):
        publish_bytes(plan_file, json.dumps(plan.facts).encode())
        return None
    made = read_info(out).get("made")
    if made != plan.facts:
        difference = f", made with another {_difference(made, plan.facts)}" if made else ""
        raise UserError(f"{out} already holds shards{difference}: choose another directory or remove them")
    manifests = {split: Manifest.read(out, split) for split in sorted({shard.split for shard in plan.shards})}
    if not any(manifest.check_files() for manifest in manifests.values()):
        return Outcome(manifests, complete_before=True)
    for manifest in manifests.values():
        for index, shard in enumerate(manifest.shards):
            Journal(plan.id, shard_rows(manifest, index)).write(journal_path(work, shard.name))
    publish_bytes(plan_file, json.dumps(plan.facts).encode())
    return None


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    names = {"listing": "list of files", "shards": "number of samples per shard", "fingerprints": "source"}
    differing = [name for name in now if before.get(name) != now[name]]
    plain = [name for name in differing if name not in names]
    values = [f"{name} ({before.get(name)}, now {now[name]})" for name in plain]
    return ", ".join(values) or ", ".join(names[name] for name in differing)


def _check_space(out: Path, work: Path, plan: Plan) -> None:
    there = sum(path.stat().st_size for folder in (out, work) for path in folder.glob("*.tar"))
    free = shutil.disk_usage(out).free
    if plan.bytes - there > free:
        needed = (plan.bytes - there) / 1e9
        raise UserError(f"{out} has {free / 1e9:.2f} GB free; the set needs up to {needed:.2f} GB more")


def _refusal(damaged: list[DamagedImages], work: Path) -> WorkFailed:
    notes = {key: why for one in damaged for key, why in one.notes.items()}
    path = work / "damaged.txt"
    publish_bytes(path, "".join(f"{key}\t{why}\n" for key, why in notes.items()).encode())
    first = "; ".join(f"{key}: {why}" for key, why in list(notes.items())[:NAMED])
    more = f"; all of them are in {path}" if len(notes) > NAMED else ""
    files = f"{len(notes):,} damaged {'file' if len(notes) == 1 else 'files'}"
    cure = "Replace them, or leave them out with --skip-damaged"
    return WorkFailed(f"{files}, nothing is published: {first}{more}. {cure}")


def _publish(
    out: Path, work: Path, plan: Plan, classes: tuple[str, ...], shards: list[ShardRows]
) -> dict[str, Manifest]:
    parts: dict[str, list[ShardRows]] = {}
    for planned, rows in zip(plan.shards, shards, strict=True):
        parts.setdefault(planned.split, []).append(rows)
    manifests = {split: assemble(out, split, classes, rows) for split, rows in parts.items()}
    for planned in plan.shards:
        if (work / planned.name).exists():
            os.replace(work / planned.name, out / planned.name)
    flush_directory(out)
    write_info(out, manifests, plan.facts)
    for manifest in manifests.values():
        manifest.write()
    for path in work.iterdir():
        if path.name != "lock":
            path.unlink()
    return manifests
