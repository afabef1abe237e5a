"""Oxford 102 Flowers and the Oxford-IIIT Pets from their official archives, split as the paper's Table 2."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.packing.sources.archives import UnpackedTar
from pipeline.data.packing.sources.source import TABLE_2, Expectation, Source, check_counts, listing
from pipeline.errors import UserError, WorkFailed

FLOWER_FILES = ("102flowers.tgz", "imagelabels.mat", "setid.mat")
PET_FILES = ("images.tar.gz", "annotations.tar.gz")


def flowers(root: Path, expected: Expectation = TABLE_2["flowers"]) -> Source:
    """Training on `trnid` and `valid` together (2,040 images), as in the paper; validation on `tstid`."""
    archive_path, labels_path, sets_path = _files(root, FLOWER_FILES)
    labels = _matrix(labels_path, "labels")
    sets = {name: _matrix(sets_path, name) for name in ("trnid", "valid", "tstid")}
    archive = UnpackedTar.read(archive_path)
    numbers = {
        "train": np.concatenate([sets["trnid"], sets["valid"]]),
        "validation": sets["tstid"],
    }
    names = {split: [f"jpg/image_{n:05d}.jpg" for n in chosen] for split, chosen in numbers.items()}
    splits = {}
    for split, chosen in numbers.items():
        if len(chosen) and not 1 <= chosen.min() <= chosen.max() <= len(labels):
            raise WorkFailed(f"{sets_path} names images beyond the {len(labels):,} that have labels")
        keys = [Path(name).stem for name in names[split]]
        splits[split] = listing(keys, labels[chosen - 1] - 1, _sizes(archive, names[split]))
    classes = tuple(str(number) for number in range(1, int(labels.max()) + 1))
    source = Source("flowers", classes, splits, lambda split, row: archive.payload(names[split][row]))
    check_counts(source, expected)
    return source


def pets(root: Path, expected: Expectation = TABLE_2["pets"]) -> Source:
    """The lists `trainval.txt` and `test.txt`; classes are the 37 breeds in the order of their ids."""
    images_path, annotations_path = _files(root, PET_FILES)
    annotations = UnpackedTar.read(annotations_path)
    archive = UnpackedTar.read(images_path)
    lists = {"train": "annotations/trainval.txt", "validation": "annotations/test.txt"}
    breeds: dict[int, str] = {}
    names, splits = {}, {}
    for split, member in lists.items():
        stems, labels = [], []
        for line in annotations.payload(member).decode().splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            stem, breed, *_ = line.split()
            name = stem.rpartition("_")[0]
            if breeds.setdefault(int(breed), name) != name:
                raise WorkFailed(f"{annotations_path}: class {breed} is both {breeds[int(breed)]} and {name}")
            stems.append(stem)
            labels.append(int(breed) - 1)
        names[split] = [f"images/{stem}.jpg" for stem in stems]
        splits[split] = listing(stems, labels, _sizes(archive, names[split]))
    if sorted(breeds) != list(range(1, len(breeds) + 1)):
        raise WorkFailed(f"{annotations_path}: the class ids are not 1 to {len(breeds)}")
    classes = tuple(breeds[number] for number in sorted(breeds))
    source = Source("pets", classes, splits, lambda split, row: archive.payload(names[split][row]))
    check_counts(source, expected)
    return source


def _files(root: Path, names: tuple[str, ...]) -> list[Path]:
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise UserError(f"{root} lacks {', '.join(missing)}; it must hold {', '.join(names)}")
    return [root / name for name in names]


def _sizes(archive: UnpackedTar, names: list[str]) -> list[int]:
    missing = [name for name in names if name not in archive.members]
    if missing:
        raise WorkFailed(f"{archive.path} lacks {len(missing):,} listed images, such as {missing[0]}")
    return [archive.members[name].size for name in names]


def _matrix(path: Path, name: str) -> np.ndarray:
    """A vector of integers from a MATLAB file."""
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(io.BytesIO(path.read_bytes()))
    except Exception as error:  # the parser may raise anything on a damaged file
        raise WorkFailed(f"{path} cannot be read: {error}") from None
    if name not in content:
        raise WorkFailed(f"{path} has no field {name!r}")
    return np.asarray(content[name]).reshape(-1).astype(np.int64)
