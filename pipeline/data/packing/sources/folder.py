"""Images in folders: `class/image`, by itself or under train/ and validation/."""

import os
from collections.abc import Sequence
from pathlib import Path

import xxhash

from pipeline.data.packing.sources.source import Listing, Source, listing
from pipeline.errors import UserError, some
from tnt.untrusted.pictures import MOST_BYTES
from tnt.untrusted.reading import check_regular, read_bytes, text_of

IMAGES = {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm"}
SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "val", "test")}
LONGEST_KEY = 90  # key and extension must fit into a tar header's name, 100 bytes


def folder(root: Path, name: str = "") -> Source:
    """ROOT/train/<class>/… and ROOT/validation/<class>/… (or val, test); or ROOT/<class>/…, all train."""
    if not root.is_dir():
        raise UserError(f"{root} is not a directory")
    found = split_folders(root)
    trees = {split: class_tree(path) for split, path in (found or {"train": root}).items()}
    classes = sorted(trees["train"] if "train" in trees else next(iter(trees.values())))
    for split, tree in trees.items():
        if unknown := sorted(set(tree) - set(classes)):
            raise UserError(f"{found[split]} has classes that train does not have: {some(unknown)}")
    files: dict[str, list[Path]] = {}
    splits: dict[str, Listing] = {}
    left_out: list[Path] = []
    for split, tree in trees.items():
        files[split], splits[split] = tree_listing(tree, classes, left_out)
    notes: tuple[str, ...] = ()
    if left_out:
        notes = (f"{len(left_out):,} files without an image extension were left out, such as {left_out[0]}",)
    plain = "".join(c if c.isalnum() and c.isascii() else "_" for c in root.resolve().name.lower())
    return Source(
        name=name or plain.strip("_") or "folder",
        classes=tuple(classes),
        splits=splits,
        read=lambda split, row: read_bytes(files[split][row], MOST_BYTES),
        notes=notes,
    )


def split_folders(root: Path) -> dict[str, Path]:
    found = {}
    for split, names in SPLIT_FOLDERS.items():
        there = [root / name for name in names if (root / name).is_dir()]
        if len(there) > 1:
            raise UserError(f"{root} has both {there[0].name}/ and {there[1].name}/: leave one of them")
        if there:
            found[split] = there[0]
    return found if "train" in found else {}


def class_tree(root: Path) -> dict[str, Path]:
    folders = {
        entry.name: Path(entry.path)
        for entry in os.scandir(root)
        if entry.is_dir() and not entry.name.startswith(".")
    }
    if not folders:
        raise UserError(f"{root} has no folders: one per class is expected")
    for name in folders:
        text_of(os.fsencode(name), f"the name of a class in {root}")
    return folders


def tree_listing(
    tree: dict[str, Path], classes: Sequence[str], left_out: list[Path]
) -> tuple[list[Path], Listing]:
    """Every image below each class's folder, sorted; a class without images is an error."""
    rows: list[tuple[Path, str, int, int]] = []
    taken: set[str] = set()
    for label, name in enumerate(classes):
        found = _walk(tree[name], left_out) if name in tree else []
        if name in tree and not found:
            raise UserError(
                f"{tree[name]} holds no images ({', '.join(sorted(IMAGES))}): remove it or fill it"
            )
        for path, size in found:
            key = unique_key(f"{name}/{path.relative_to(tree[name])}", taken)
            rows.append((path, key, label, size))
    files, keys, labels, sizes = zip(*rows, strict=True)
    return list(files), listing(keys, labels, sizes)


def _walk(root: Path, left_out: list[Path]) -> list[tuple[Path, int]]:
    found = []
    seen = set()
    for directory, folders, names in os.walk(root, followlinks=True):
        place = os.stat(directory)
        if (place.st_dev, place.st_ino) in seen:
            raise UserError(f"{directory} is a link to a folder that was listed already: remove it")
        seen.add((place.st_dev, place.st_ino))
        folders.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() in IMAGES:
                found.append((path, _size(path)))
            else:
                left_out.append(path)
    return found


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; remove it") from None
    check_regular(path, found.st_mode)
    return found.st_size


def unique_key(name: str, taken: set[str]) -> str:
    """A file's key for webdataset, where a key ends at the first dot of its last part.

    Keys that are too long for a tar header, or equal to another one, get a hash of the whole name.
    """
    directory, slash, base = os.path.splitext(name)[0].rpartition("/")
    key = directory + slash + base.replace(".", "_")
    key = "".join("_" if ord(c) < 32 else c for c in key)
    if key in taken or len(key.encode("utf-8", "surrogateescape")) > LONGEST_KEY:
        hashed = xxhash.xxh3_64_hexdigest(name.encode("utf-8", "surrogateescape"))
        short = key.encode("utf-8", "surrogateescape")[: LONGEST_KEY - 17].decode("utf-8", "ignore")
        key = f"{short.replace('/', '_').replace('.', '_')}-{hashed}"
    taken.add(key)
    return key
