"""Writes the manifests of tars that exist already, whoever made them."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.data.images.decode import DecodeError, inspect_image
from pipeline.data.packing.build import Outcome
from pipeline.data.packing.fork_pool import Advance, run_forked
from pipeline.data.packing.shard_rows import RowCollector, ShardRows, join_shards, listed
from pipeline.data.shards.tar import scan, scan_file, tar_samples
from pipeline.data.shards.timm_info import read_info, write_info
from pipeline.errors import UserError, WorkFailed
from pipeline.files import sha256_of
from pipeline.terminal import progress
from tnt.untrusted.pictures import MOST_BYTES
from tnt.untrusted.reading import open_regular, other_than, read_text

SPLIT_WORD = re.compile(r"(?:^|[-_.])(train|validation|valid|val|test)(?=[-_.\d]|$)")


def index(root: Path, workers: int = 0, skip_damaged: bool = False) -> Outcome:
    """Scan, decode and hash every tar in ROOT, then write manifests and `_info.json` beside them."""
    splits = tars_of_splits(root)
    tars = [path for paths in splits.values() for path in paths]
    # Reading the headers takes seconds: damaged tars are refused, and the number of samples is known.
    with progress(len(tars), "scanning tars") as advance:
        total = sum(run_forked(count_samples, tars, workers, advance))
    with progress(total, "indexing") as advance:
        found = dict(zip(tars, run_forked(index_tar, tars, workers, advance), strict=True))
    outcome = Outcome.of(list(found.values()))
    if outcome.skipped and not skip_damaged:
        raise WorkFailed(
            f"{len(outcome.skipped):,} damaged images, no index is written: {listed(outcome.skipped)}. "
            f"Replace them, or leave them out of the index with --skip-damaged"
        )
    classes = _classes(root, list(found.values()))
    outcome.manifests = {
        split: join_shards(root, split, classes, [found[path] for path in paths])
        for split, paths in splits.items()
    }
    write_info(root, outcome.manifests, read_info(root).get("made"))
    for manifest in outcome.manifests.values():
        manifest.write()
    return outcome


def tars_of_splits(root: Path) -> dict[str, list[Path]]:
    """Tars by the split that their names say; if no name says one, all of them belong to train.

    A test split is called validation, as in timm, unless there is a validation split too.
    """
    tars = sorted(root.glob("*.tar"))
    if not tars:
        raise UserError(f"{root} holds no .tar files")
    words = {path: _split_word(path) for path in tars}
    if not any(words.values()):
        return {"train": tars}
    if nameless := [path.name for path, word in words.items() if not word]:
        raise UserError(f"{root}: the name {nameless[0]} says no split (train, validation, val, test)")
    if "validation" not in words.values():
        words = {path: "validation" if word == "test" else word for path, word in words.items()}
    return {split: [path for path in tars if words[path] == split] for split in sorted(set(words.values()))}


def _split_word(path: Path) -> str:
    found = SPLIT_WORD.findall(path.stem.lower())
    word = found[-1] if found else ""
    return "validation" if word in ("val", "valid") else word


def count_samples(path: Path, advance: Advance) -> int:
    count = sum(1 for _ in tar_samples(scan_file(path), path.name))
    advance(1)
    return count


def index_tar(path: Path, advance: Advance) -> ShardRows:
    collector = RowCollector()

    def read(at: int, count: int) -> bytes:
        return os.pread(file.fileno(), count, at)

    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        for sample in tar_samples(scan(read, 0, size, path.name), path.name):
            image = sample.image(path.name)
            label = sample.label(read, path.name)
            advance(1)
            try:
                if image.size > MOST_BYTES:
                    raise DecodeError(f"it has {image.size:,} bytes; at most {MOST_BYTES:,} are read")
                payload = read(image.offset, image.size)
                collector.add(sample.key, label, image.offset, inspect_image(payload))
            except DecodeError as error:
                collector.skipped[f"{path.name}: {sample.key.decode(errors='replace')}"] = str(error)
        return collector.finish(path.name, size, sha256_of(file))


def _classes(root: Path, shards: Sequence[ShardRows]) -> tuple[str, ...]:
    """Names from classes.txt (one a line) or `_info.json`; without either, the labels themselves."""
    count = 1 + max((int(part.rows["label"].max()) for part in shards if len(part.rows)), default=-1)
    path = root / "classes.txt"
    names = read_text(path).splitlines() if os.path.lexists(path) else read_info(root).get("classes")
    if not names:
        return tuple(str(label) for label in range(count))
    if problem := other_than(names, [str]):
        raise UserError(f"{root / '_info.json'}: of the classes {problem}")
    if len(names) < count:
        raise UserError(f"{root} has labels up to {count - 1} but names for {len(names)} classes")
    return tuple(names)
