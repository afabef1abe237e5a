"""ImageNet (ILSVRC 2012) as it is distributed: two tars and the development kit, or folders made of them.

The training tar holds one tar per class; both are read in place. Labels are the indices of the sorted WordNet
ids, as in torchvision and timm; the kit numbers the classes differently.
"""

import os
from collections.abc import Callable, Sequence
from io import FileIO
from numbers import Integral
from pathlib import Path

import numpy as np

from pipeline.data.packing.fork_pool import Advance, run_forked
from pipeline.data.packing.sources.archives import UnpackedTar
from pipeline.data.packing.sources.folder import IMAGES, folder, split_folders
from pipeline.data.packing.sources.matlab import variable
from pipeline.data.packing.sources.source import TABLE_2, Expectation, Listing, Source, check_counts, listing
from pipeline.data.shards.tar import Member, scan_file
from pipeline.errors import UserError, WorkFailed, some
from pipeline.terminal import progress
from tnt.untrusted.pictures import MOST_BYTES
from tnt.untrusted.reading import descriptor_of, read_bytes, text_of, whole_number

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VALIDATION_TAR = "ILSVRC2012_img_val.tar"
KIT = "ILSVRC2012_devkit_t12"
TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
META = "data/meta.mat"

Part = tuple[Listing, Callable[[int], bytes]]  # of an archive: what it holds, and the payload of a row


def imagenet(root: Path, workers: int = 0, expected: Expectation = TABLE_2["imagenet"]) -> Source:
    """The tars if they are in ROOT, else train/<wnid>/ with val/<wnid>/ or a flat val/ and the kit."""
    if not root.is_dir():
        raise UserError(f"{root} is not a directory")
    if (root / TRAIN_TAR).exists():
        classes, train = _train_tar(root / TRAIN_TAR, workers)
        parts = {"train": train, "validation": _validation_tar(root, classes)}
        splits = {split: rows for split, (rows, _) in parts.items()}
        source = Source("imagenet", classes, splits, lambda split, row: parts[split][1](row))
    else:
        source = _folders(root)
    return check_counts(source, expected)


def _train_tar(path: Path, workers: int) -> tuple[tuple[str, ...], Part]:
    outer = sorted(scan_file(path, old=True))
    wnids = [text_of(member.name, str(path)).removesuffix(".tar") for member in outer]
    if not outer or not all(member.name.endswith(b".tar") for member in outer):
        raise UserError(f"{path} is not the training archive: its members are not one tar per class")

    def index(member: Member, advance: Advance) -> list[Member]:
        found = list(scan_file(path, member.offset, member.offset + member.size, old=True))
        advance(1)
        return found

    with progress(len(outer), "listing the classes") as advance:
        members = [sorted(found) for found in run_forked(index, outer, workers, advance)]
    labels = [label for label, found in enumerate(members) for _ in found]
    return tuple(wnids), _part(path, [one for found in members for one in found], labels)


def _part(path: Path, members: Sequence[Member], labels: Sequence[int]) -> Part:
    stems = [member.name.rpartition(b"/")[2].partition(b".")[0] for member in members]
    rows = listing(stems, labels, [member.size for member in members])
    offsets = np.array([member.offset for member in members], np.int64)
    file = FileIO(descriptor_of(path))

    def read(row: int) -> bytes:
        size = int(rows.size[row])
        payload = os.pread(file.fileno(), size, int(offsets[row]))
        if len(payload) < size:
            raise WorkFailed(f"{path} has become shorter since it was listed")
        return payload

    return rows, read


def _validation_tar(root: Path, classes: Sequence[str]) -> Part:
    path = root / VALIDATION_TAR
    if not path.exists():
        raise UserError(f"{path} is missing: it holds the validation images")
    members = sorted(scan_file(path, old=True))
    return _part(path, members, _validation_labels(root, classes, len(members)))


def _validation_labels(root: Path, classes: Sequence[str], images: int) -> list[int]:
    """Labels of the validation images in the order of their names, from the development kit."""
    truth, meta = _kit(root)
    leaves = _wnid_of_id(meta, f"{root}: {META}")
    if missing := sorted(set(leaves.values()) ^ set(classes)):
        raise UserError(f"{root}: the kit's classes and the training classes differ in {some(missing)}")
    lines = truth.split()
    if len(lines) != images:
        raise UserError(f"{root}: the kit has {len(lines):,} labels for {images:,} validation images")
    place = {wnid: label for label, wnid in enumerate(classes)}
    labels = []
    for line, text in enumerate(lines, 1):
        id = whole_number(text, 1, max(leaves, default=0), f"{root}: {TRUTH}, line {line}")
        if id not in leaves:
            raise UserError(f"{root}: {TRUTH}, line {line}: {id} is no leaf of {META}")
        labels.append(place[leaves[id]])
    return labels


def _kit(root: Path) -> tuple[bytes, bytes]:
    for place in (root / KIT, root):
        if (place / TRUTH).exists() and (place / META).exists():
            return read_bytes(place / TRUTH), read_bytes(place / META)
    archive = root / f"{KIT}.tar.gz"
    if not archive.exists():
        raise UserError(f"{archive} is missing: it holds the labels of the validation images")
    kit = UnpackedTar.read(archive)
    return kit.payload(f"{KIT}/{TRUTH}"), kit.payload(f"{KIT}/{META}")


def _wnid_of_id(meta: bytes, where: str) -> dict[int, str]:
    """The kit's number of each leaf class; numbers above the leaves are inner nodes of WordNet."""
    synsets = variable(meta, "synsets", where)
    if missing := {"ILSVRC2012_ID", "WNID", "num_children"} - {*(synsets.dtype.names or ())}:
        raise WorkFailed(f"{where}: synsets have no {', '.join(sorted(missing))}")
    found = {}
    for line, one in enumerate(synsets, 1):
        id, children = one["ILSVRC2012_ID"], one["num_children"]
        if not isinstance(id, Integral) or not isinstance(children, Integral):
            raise WorkFailed(f"{where}: synset {line} has no number of its own, or of its children")
        if children == 0:
            found[int(id)] = str(one["WNID"])
    return found


def _folders(root: Path) -> Source:
    found = split_folders(root)
    if not found:
        raise UserError(f"{root} holds neither {TRAIN_TAR} nor train/<wnid>/ folders")
    if "validation" not in found:
        raise UserError(f"{root} has train/ but no val/")
    flat = sorted(p for p in found["validation"].iterdir() if p.is_file() and p.suffix.lower() in IMAGES)
    if not flat:
        return folder(root, "imagenet")
    train = folder(found["train"], "imagenet")
    sizes = [path.stat().st_size for path in flat]
    labels = _validation_labels(root, train.classes, len(flat))
    splits = train.splits | {"validation": listing([path.stem for path in flat], labels, sizes)}

    def read(split: str, row: int) -> bytes:
        return train.read(split, row) if split == "train" else read_bytes(flat[row], MOST_BYTES)

    return Source("imagenet", train.classes, splits, read)
