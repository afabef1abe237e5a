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
from tnt.untrusted.reading import other_than, text_of

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

    def held(name: str, shape: dict[bytes, Any]) -> dict[bytes, Any]:
        where = f"{path}: {name}"
        found: dict[bytes, Any] = unpickle(archive.payload(f"{layout.folder}/{name}"), where)
        if problem := other_than(found, shape):
            raise WorkFailed(f"{where}: {problem}")
        return found

    names = held(layout.meta, {layout.names: [bytes]})[layout.names]
    classes = tuple(text_of(one, f"{path}: {layout.meta}") for one in names)
    images, splits = {}, {}
    for split, batches in layout.batches.items():
        loaded = [held(batch, {b"data": np.ndarray, layout.labels: [int]}) for batch in batches]
        images[split] = _images([one[b"data"] for one in loaded], path)
        labels = [label for one in loaded for label in one[layout.labels]]
        if len(labels) != len(images[split]):
            raise WorkFailed(f"{path}: {len(labels)} labels for {len(images[split])} images of {split}")
        for row, label in enumerate(labels):
            if not 0 <= label < len(classes):
                raise WorkFailed(f"{path}: label {row} of {split} is not one of 0 to {len(classes) - 1}")
        keys = [f"{split}-{row:05d}" for row in range(len(labels))]
        splits[split] = listing(keys, labels, [4096] * len(labels))

    def read(split: str, row: int) -> bytes:
        from PIL import Image

        return encoded(Image.fromarray(images[split][row]), "PNG")

    return check_counts(Source(name, classes, splits, read), expected or TABLE_2[name])


def _images(batches: Sequence[np.ndarray], path: Path) -> np.ndarray:
    for data in batches:
        if data.dtype != np.uint8 or data.shape[1:] != (3072,):
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
