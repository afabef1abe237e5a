"""A split's shards on the node's own disk: copied once, for all ranks of the node and for later jobs on it.

The first process takes a lock and copies; the others wait for the lock and find the copy complete. A shard
gets its name when its hash is right, so that an interrupted copy can be continued. The directory's name
contains the split's fingerprint, which keeps versions of a set apart.
"""

import dataclasses
import errno
import hashlib
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from pipeline.data.shards.manifest import Manifest, Shard, manifest_path
from pipeline.errors import UserError, WorkFailed
from pipeline.files import PARTIAL, locked, published
from pipeline.terminal import progress
from tnt.untrusted.reading import open_regular

log = logging.getLogger(__name__)
PIECE = 8 << 20
COPIES = 4  # at a time, because one stream does not use the full speed of a parallel file system
RESERVE = 1 << 30  # bytes that stay free on the disk


def stage(manifest: Manifest, directory: Path | str) -> Manifest:
    """The same split, to be read from below `directory`; all processes of a node may call this."""
    home = Path(directory).absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"data.stage={directory} cannot be used: {error.strerror}; name a local disk"
        ) from None
    target = home / f"{manifest.split}-{manifest.fingerprint[:16]}"
    staged = dataclasses.replace(manifest, root=target)
    if _complete(staged):
        return staged
    said = f"waiting for another process of this node to stage {target.name}"
    with locked(home / f"{target.name}.lock", waiting=lambda: log.info(said)):
        if not _complete(staged):
            _fill(manifest, staged)
    return staged


def _complete(staged: Manifest) -> bool:
    """The manifest is written last; the sizes show whether shards were deleted since."""
    return manifest_path(staged.root, staged.split).exists() and not staged.check_files()


def _fill(source: Manifest, staged: Manifest) -> None:
    staged.root.mkdir(exist_ok=True)
    for partial in staged.root.glob(f".*{PARTIAL}"):
        partial.unlink()
    missing = [shard for shard in staged.shards if shard.problem(staged.root)]
    _check_space(staged.root, sum(shard.bytes for shard in missing))
    total = sum(shard.samples for shard in missing)

    def copied(shard: Shard) -> None:
        _copy(source.root / shard.name, staged.root, shard)

    with ThreadPoolExecutor(COPIES) as copies, progress(total, f"staging {source.split}") as advance:
        # Not kept in a variable: an error ends the iterator, which cancels the copies that have not begun.
        for shard, _ in zip(missing, copies.map(copied, missing), strict=True):
            advance(shard.samples)
    staged.write()


def _copy(source: Path, target: Path, shard: Shard) -> None:
    """At most twice: a read error may not happen again, a damaged shard stays damaged."""
    for _ in range(2):
        try:
            with published(target / shard.name) as file:
                _copy_checked(source, file, shard)
            return
        except _WrongBytes:
            continue
        except OSError as error:
            hint = "; free some space or set data.stage elsewhere" if error.errno == errno.ENOSPC else ""
            raise WorkFailed(f"cannot stage {source} to {target}: {error.strerror}{hint}") from error
    raise WorkFailed(
        f"{source} has another hash than its manifest records. "
        f"`python pipeline/shards.py verify {source.parent}` names what to replace"
    )


class _WrongBytes(Exception):
    pass


def _copy_checked(source: Path, target: BinaryIO, shard: Shard) -> None:
    digest = hashlib.sha256()
    with open_regular(source) as file:
        os.posix_fallocate(target.fileno(), 0, shard.bytes)
        while piece := file.read(PIECE):
            digest.update(piece)
            target.write(piece)
    if digest.hexdigest() != shard.sha256:
        raise _WrongBytes


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target).free
    if needed + RESERVE > free:
        others = [path.name for path in sorted(target.parent.iterdir()) if path.is_dir() and path != target]
        hint = f"; staged there by earlier jobs: {', '.join(others)}" if others else ""
        raise UserError(
            f"{target.parent} has {free / 1e9:.1f} GB free, staging needs {needed / 1e9:.1f} GB and leaves "
            f"{RESERVE / 1e9:.1f} GB{hint}; free some, name another disk, or leave data.stage empty"
        )
