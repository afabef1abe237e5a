"""Oxford 102 Flowers and the Oxford-IIIT Pets from their official archives, split as the paper's Table 2."""

from pathlib import Path

import numpy as np

from pipeline.data.packing.sources.archives import UnpackedTar
from pipeline.data.packing.sources.matlab import vector
from pipeline.data.packing.sources.source import TABLE_2, Expectation, Source, check_counts, listing
from pipeline.errors import UserError, WorkFailed
from tnt.config import MOST
from tnt.untrusted.reading import read_bytes, text_of, whole_number

FLOWER_FILES = ("102flowers.tgz", "imagelabels.mat", "setid.mat")
PET_FILES = ("images.tar.gz", "annotations.tar.gz")


def flowers(root: Path, expected: Expectation = TABLE_2["flowers"]) -> Source:
    """Training on `trnid` and `valid` together (2,040 images), as in the paper; validation on `tstid`."""
    archive_path, labels_path, sets_path = _files(root, FLOWER_FILES)
    labels = vector(read_bytes(labels_path), "labels", str(labels_path))
    stored = read_bytes(sets_path)
    sets = {name: vector(stored, name, str(sets_path)) for name in ("trnid", "valid", "tstid")}
    archive = UnpackedTar.read(archive_path)
    numbers = {"train": np.concatenate([sets["trnid"], sets["valid"]]), "validation": sets["tstid"]}
    names = {split: [f"jpg/image_{n:05d}.jpg" for n in chosen] for split, chosen in numbers.items()}
    splits = {}
    for split, chosen in numbers.items():
        if chosen.max() > len(labels):
            raise WorkFailed(f"{sets_path} names images beyond the {len(labels):,} that have labels")
        keys = [Path(name).stem for name in names[split]]
        splits[split] = listing(keys, labels[chosen - 1] - 1, _sizes(archive, names[split]))
    classes = tuple(str(number) for number in range(1, int(labels.max()) + 1))
    source = Source("flowers", classes, splits, lambda split, row: archive.payload(names[split][row]))
    return check_counts(source, expected)


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
        where = f"{annotations_path}: {member}"
        for line, text in enumerate(text_of(annotations.payload(member), where).splitlines(), 1):
            if not text.strip() or text.startswith("#"):
                continue
            stem, breed, *_ = [*text.split(), ""]
            number = whole_number(breed, 1, MOST["classes"], f"{where}, line {line}")
            name = stem.rpartition("_")[0]
            if breeds.setdefault(number, name) != name:
                raise WorkFailed(f"{annotations_path}: class {number} is both {breeds[number]} and {name}")
            stems.append(stem)
            labels.append(number - 1)
        names[split] = [f"images/{stem}.jpg" for stem in stems]
        splits[split] = listing(stems, labels, _sizes(archive, names[split]))
    if sorted(breeds) != list(range(1, len(breeds) + 1)):
        raise WorkFailed(f"{annotations_path}: the class ids are not 1 to {len(breeds)}")
    classes = tuple(breeds[number] for number in sorted(breeds))
    source = Source("pets", classes, splits, lambda split, row: archive.payload(names[split][row]))
    return check_counts(source, expected)


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
