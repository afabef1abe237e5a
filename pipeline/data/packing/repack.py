"""Lossless rewriting with restart markers, so that a crop decodes little more than its own pixels.

`jpegtran -optimize -restart` rewrites the entropy coding and nothing else; progressive files become
sequential, which decode three times as fast. Every image's pixels are compared before and after.
"""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.data.images.inspection import Inspection
from pipeline.data.images.jpeg import SEGMENT, read_frame, restart_interval, restart_rows
from pipeline.data.packing.build import Outcome, build
from pipeline.data.packing.fork_pool import Advance
from pipeline.data.packing.shard_plan import Plan, PlannedShard
from pipeline.data.packing.shard_rows import RowBook
from pipeline.data.packing.verify import splits_of
from pipeline.data.shards.manifest import ImageKind, Manifest
from pipeline.data.shards.tar import ArchiveWriter, Member, scan_file
from pipeline.errors import UserError, WorkFailed

COMMAND = ("jpegtran", "-copy", "all", "-optimize", "-restart")
TREATED = (ImageKind.JPEG, ImageKind.PROGRESSIVE, ImageKind.GREY)


def repack(root: Path, out: Path, workers: int = 0) -> Outcome:
    """The same set, sample for sample and name for name, with restart bands wherever there can be some."""
    if not shutil.which(COMMAND[0]):
        raise UserError("jpegtran is not on PATH (Debian: apt install libjpeg-turbo-progs)")
    if out.resolve() == root.resolve():
        raise UserError(f"{out} is the set itself: choose another directory")
    manifests = {split: Manifest.read(root, split) for split in splits_of(root)}
    for manifest in manifests.values():
        if problems := manifest.check_files():
            raise WorkFailed(f"{root}: {'; '.join(problems)}")

    def fill(planned: PlannedShard, archive: ArchiveWriter, book: RowBook, advance: Advance) -> None:
        _fill(manifests[planned.split], planned, archive, book, advance)

    classes = next(iter(manifests.values())).classes
    return build(out, _plan(manifests), classes, fill, what="repacking", workers=workers)


def _plan(manifests: dict[str, Manifest]) -> Plan:
    shards = [
        PlannedShard(shard.name, split, np.flatnonzero(manifest.shard == index))
        for split, manifest in sorted(manifests.items())
        for index, shard in enumerate(manifest.shards)
    ]
    total = sum(shard.bytes for manifest in manifests.values() for shard in manifest.shards)
    fingerprints = {split: manifest.fingerprint for split, manifest in sorted(manifests.items())}
    return Plan(tuple(shards), total, {"repacked": [*COMMAND, SEGMENT], "fingerprints": fingerprints})


def _fill(
    manifest: Manifest, planned: PlannedShard, archive: ArchiveWriter, book: RowBook, advance: Advance
) -> None:
    """Every member is copied in its order; the manifest's payloads are rewritten on the way."""
    path = manifest.root / planned.name
    row_at = {int(manifest.offset[row]): int(row) for row in planned.samples}
    with open(path, "rb", buffering=0) as file:
        for member in scan_file(path):
            content = _content(file.fileno(), member, path)
            row = row_at.pop(member.offset, None)
            if row is None:
                archive.add(member.name, content)
                continue
            key = bytes(manifest.key[row])
            if not manifest.is_sound(row, content):
                raise WorkFailed(
                    f"{path}: sample {key.decode(errors='replace')} is damaged; verify the set first"
                )
            kind = ImageKind(int(manifest.kind[row]))
            image = Inspection(kind, int(manifest.width[row]), int(manifest.height[row]))
            content, image = rewritten(content, image)
            book.add(key, int(manifest.label[row]), archive.add(member.name, content), content, image)
            advance(1)
    if row_at:
        raise WorkFailed(f"{path} lacks {len(row_at)} of the samples in its manifest; verify the set first")


def _content(descriptor: int, member: Member, path: Path) -> bytes:
    content = os.pread(descriptor, member.size, member.offset)
    if len(content) != member.size:
        raise WorkFailed(f"{path} ends at byte {member.offset + len(content)}")
    return content


def rewritten(payload: bytes, image: Inspection) -> tuple[bytes, Inspection]:
    """The payload with restart markers if that is possible without a change in any pixel, else as it was."""
    if image.kind not in TREATED or len(restart_rows(payload)):
        return payload, image
    interval = f"{restart_interval(read_frame(payload))}B"  # in MCUs
    ran = subprocess.run([*COMMAND, interval], input=payload, capture_output=True)
    if ran.returncode != 0 or ran.stderr or not _same_pixels(payload, ran.stdout):
        return payload, image
    kind = read_frame(ran.stdout).kind
    gained = len(restart_rows(ran.stdout)) > 0
    if not gained and len(ran.stdout) >= len(payload):
        return payload, image
    return ran.stdout, replace(image, kind=kind)


def _same_pixels(before: bytes, after: bytes) -> bool:
    import simplejpeg

    return np.array_equal(simplejpeg.decode_jpeg(before), simplejpeg.decode_jpeg(after))
