"""Writes the shards of a plan, in several processes; the same call continues after it was killed.

All shards are written to `OUT/.make` and moved to OUT when the last one is finished, so that OUT never holds
an incomplete set. Beside each finished shard lies its journal (size, hash, rows): it is not written again.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline.data.images.decode import DecodeError, ImageKind, inspect_image
from pipeline.data.packing.fork_pool import Advance, run_forked
from pipeline.data.packing.shard_rows import NAMED, Notes, RowCollector, ShardRows, join_shards, listed
from pipeline.data.packing.sources.source import Source
from pipeline.data.shards.manifest import Manifest
from pipeline.data.shards.tar import ArchiveWriter
from pipeline.data.shards.timm_info import read_info, write_info
from pipeline.errors import UserError, WorkFailed, counted
from pipeline.files import (
    PARTIAL,
    LockedElsewhere,
    flush_directory,
    locked,
    publish_bytes,
    published,
    sha256,
)
from pipeline.terminal import progress
from tnt.untrusted.reading import read_json

REPORT_EVERY = 16  # images


@dataclass(frozen=True, eq=False)
class PlannedShard:
    name: str
    split: str
    samples: np.ndarray  # rows of the source's listing, in the shard's order

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class PackingPlan:
    shards: tuple[PlannedShard, ...]
    bytes: int  # at most
    facts: dict[str, Any]  # all that decides the shards' bytes: plans with equal facts are the same plan

    @property
    def samples(self) -> int:
        return sum(len(shard.samples) for shard in self.shards)

    @property
    def id(self) -> str:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()


@dataclass
class Outcome:
    manifests: dict[str, Manifest] = field(default_factory=dict)
    complete_before: bool = False  # the set was complete already
    flawed: Notes = field(default_factory=dict)  # kept, though the strict decoder refuses them
    skipped: Notes = field(default_factory=dict)  # damaged and left out
    turned: int = 0  # images with an EXIF rotation, which is not applied

    @classmethod
    def of(cls, shards: Sequence[ShardRows]) -> Self:
        return cls(
            flawed={key: why for rows in shards for key, why in rows.flawed.items()},
            skipped={key: why for rows in shards for key, why in rows.skipped.items()},
            turned=sum(rows.turned for rows in shards),
        )


def build(source: Source, plan: PackingPlan, out: Path, workers: int, skip_damaged: bool) -> Outcome:
    """Write the set, or what is missing of it; nothing appears in OUT before all shards are finished."""
    work = out / ".make"
    with _exclusive(work):
        if complete := _start_or_continue(out, work, plan):
            return complete
        _check_space(out, work, plan)
        write = partial(_write, source, plan.id, out, work)
        with progress(plan.samples, f"packing {source.name}") as advance:
            shards: list[ShardRows] = run_forked(write, plan.shards, workers, advance)
        outcome = Outcome.of(shards)
        if outcome.skipped and not skip_damaged:
            raise _refusal(outcome.skipped, work)
        outcome.manifests = _publish(out, work, plan, source.classes, shards)
    return outcome


def _write(
    source: Source, plan_id: str, out: Path, work: Path, planned: PlannedShard, advance: Advance
) -> ShardRows:
    """One shard, in a worker process, unless it is finished already."""
    journal = journal_path(work, planned.name)
    if rows := _finished(journal, plan_id, (work, out)):
        advance(len(planned.samples))
        return rows
    collector, listing = RowCollector(), source.splits[planned.split]
    with published(work / planned.name) as file:
        archive = ArchiveWriter(file)
        for count, sample in enumerate(planned.samples.tolist(), 1):
            key, label = bytes(listing.key[sample]), int(listing.label[sample])
            payload = source.read(planned.split, sample)
            try:
                image = inspect_image(payload)
            except DecodeError as error:
                collector.skipped[key.decode(errors="replace")] = str(error)
            else:
                # Extensions by content, because webdataset's readers look for .jpg and .png.
                extension = b".png" if image.kind == ImageKind.PNG else b".jpg"
                offset = archive.add(key + extension, payload)
                archive.add(key + b".cls", b"%d" % label)
                collector.add(key, label, offset, image)
            if count % REPORT_EVERY == 0:
                advance(REPORT_EVERY)
        advance(len(planned.samples) % REPORT_EVERY)
        archive.close()
        rows = collector.finish(planned.name, archive.bytes, archive.hash.hexdigest())
        # Before the shard gets its name. One with a damaged image has no journal and is written again:
        # the image may have been replaced by then.
        if not rows.skipped:
            rows.write(journal, plan_id)
    return rows


def _finished(journal: Path, plan_id: str, folders: tuple[Path, ...]) -> ShardRows | None:
    if (rows := ShardRows.read(journal, plan_id)) is None:
        return None
    shard = rows.shard
    there = [folder / shard.name for folder in folders if not shard.problem(folder)]
    return rows if any(sha256(path) == shard.sha256 for path in there) else None


def journal_path(work: Path, shard: str) -> Path:
    return work / f"{shard}.journal"


@contextmanager
def _exclusive(work: Path) -> Iterator[None]:
    """Allow one command at a time; the lock ends with this process and is not inherited by its workers."""
    work.mkdir(parents=True, exist_ok=True)
    try:
        with locked(work / "lock"):
            _remove_partial(work)  # left by a command that was killed
            try:
                yield
            finally:
                _remove_partial(work)  # left by workers that were stopped
                if not any(path.name != "lock" for path in work.iterdir()):
                    shutil.rmtree(work)
    except LockedElsewhere:
        raise UserError(
            f"another command is writing to {work.parent}; wait until it has finished, or stop it"
        ) from None


def _remove_partial(work: Path) -> None:
    for path in [*work.glob(f".*{PARTIAL}"), *work.parent.glob(f".*{PARTIAL}")]:
        path.unlink(missing_ok=True)


def _start_or_continue(out: Path, work: Path, plan: PackingPlan) -> Outcome | None:
    """The outcome if OUT holds the plan's set; UserError if it holds anything but (a part of) that set."""
    plan_file = work / "plan.json"
    if plan_file.exists():
        begun = read_json(plan_file, dict)
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
            ShardRows.of(manifest, index).write(journal_path(work, shard.name), plan.id)
    publish_bytes(plan_file, json.dumps(plan.facts).encode())
    return None


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    names = {"listing": "list of files", "shards": "number of samples per shard"}
    differing = [name for name in now if before.get(name) != now[name]]
    plain = [name for name in differing if name not in names]
    values = [f"{name} ({before.get(name)}, now {now[name]})" for name in plain]
    return ", ".join(values) or ", ".join(names[name] for name in differing)


def _check_space(out: Path, work: Path, plan: PackingPlan) -> None:
    there = sum(path.stat().st_size for folder in (out, work) for path in folder.glob("*.tar"))
    free, more = shutil.disk_usage(out).free, plan.bytes - there
    if more > free:
        raise UserError(f"{out} has {free:,} bytes free; the set needs up to {more:,} more")


def _refusal(notes: Notes, work: Path) -> WorkFailed:
    path = work / "damaged.txt"
    publish_bytes(path, "".join(f"{key}\t{why}\n" for key, why in notes.items()).encode())
    more = f"; all of them are in {path}" if len(notes) > NAMED else ""
    return WorkFailed(
        f"{counted(len(notes), 'damaged file')}, nothing is published: {listed(notes)}{more}. "
        "Replace them, or leave them out with --skip-damaged"
    )


def _publish(
    out: Path, work: Path, plan: PackingPlan, classes: tuple[str, ...], shards: list[ShardRows]
) -> dict[str, Manifest]:
    parts: dict[str, list[ShardRows]] = {}
    for planned, rows in zip(plan.shards, shards, strict=True):
        parts.setdefault(planned.split, []).append(rows)
    manifests = {split: join_shards(out, split, classes, rows) for split, rows in parts.items()}
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
