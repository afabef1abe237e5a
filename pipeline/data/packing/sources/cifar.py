"""CIFAR-10 and CIFAR-100 from their python archives, which hold arrays: each image becomes a PNG."""

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.packing.sources.archives import UnpackedTar
from pipeline.data.packing.sources.source import TABLE_2, Expectation, Source, check_counts, encoded, listing
from pipeline.errors import UserError, WorkFailed
from tnt.untrusted.reading import text_of

# What pickled arrays need, under NumPy's names before and after 2.0. Nothing else is called.
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True)
class Layout:
    archive: str
    folder: str
    batches: dict[str, tuple[str, ...]]
    labels: bytes
    meta: str
    names: bytes


LAYOUTS = {
    "cifar10": Layout(
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "validation": ("test_batch",)},
        b"labels",
        "batches.meta",
        b"label_names",
    ),
    "cifar100": Layout(
        "cifar-100-python.tar.gz",
        "cifar-100-python",
        {"train": ("train",), "validation": ("test",)},
        b"fine_labels",
        "meta",
        b"fine_label_names",
    ),
}


def cifar(name: str, root: Path, expected: Expectation | None = None) -> Source:
    """`name` is cifar10 or cifar100; ROOT is the archive or the directory that holds it."""
    layout = LAYOUTS[name]
    path = root / layout.archive if root.is_dir() else root
    if not path.exists():
        raise UserError(f"{path} is missing: the python version of {name}")
    archive = UnpackedTar.read(path)
    meta = unpickle(archive.payload(f"{layout.folder}/{layout.meta}"), f"{path}: {layout.meta}")
    classes = _names(_field(meta, layout.names, path, layout.meta), f"{path}: {layout.meta}")
    images, splits = {}, {}
    for split, batches in layout.batches.items():
        loaded = {b: unpickle(archive.payload(f"{layout.folder}/{b}"), f"{path}: {b}") for b in batches}
        labels = []
        for b, one in loaded.items():
            labels += _labels(_field(one, layout.labels, path, b), len(classes), f"{path}: {b}")
        images[split] = _images([_field(one, b"data", path, b) for b, one in loaded.items()], path)
        if len(labels) != len(images[split]):
            raise WorkFailed(f"{path}: {len(labels)} labels for {len(images[split])} images of {split}")
        keys = [f"{split}-{row:05d}" for row in range(len(labels))]
        splits[split] = listing(keys, labels, [4096] * len(labels))

    def read(split: str, row: int) -> bytes:
        from PIL import Image

        return encoded(Image.fromarray(images[split][row]), "PNG")

    source = Source(name, tuple(classes), splits, read)
    check_counts(source, expected or TABLE_2[name])
    return source


def _field(batch: Any, name: bytes, path: Path, where: str) -> Any:
    if not isinstance(batch, dict) or name not in batch:
        raise WorkFailed(f"{path}: {where} has no field {name.decode()!r}")
    return batch[name]


def _names(stored: Any, where: str) -> list[str]:
    if not isinstance(stored, list) or not all(isinstance(one, bytes) for one in stored):
        raise WorkFailed(f"{where} has no list of names")
    return [text_of(one, where) for one in stored]


def _labels(stored: Any, classes: int, where: str) -> list[int]:
    if not isinstance(stored, list):
        raise WorkFailed(f"{where} has no list of labels")
    for row, label in enumerate(stored):
        if type(label) is not int or not 0 <= label < classes:
            raise WorkFailed(f"{where}: label {row} is {repr(label)[:40]}, not one of 0 to {classes - 1}")
    return stored


def _images(batches: Sequence[Any], path: Path) -> np.ndarray:
    for data in batches:
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
            raise WorkFailed(f"{path}: the images are not rows of 3,072 bytes")
    return np.concatenate(batches).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it needs {module}.{name}, which is not part of an array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def unpickle(data: bytes, what: str) -> Any:
    """Containers, numbers and arrays; a pickle that wants to call anything else is refused."""
    try:
        return _ArraysOnly(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise anything
        raise WorkFailed(f"{what} is refused: {error}") from None
