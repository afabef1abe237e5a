"""A data set before it is packed: its classes, its splits, and how to read each file's bytes.

A source lists all samples first, so that their number is checked and the shards are planned before anything
is written.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError, some

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class Listing:
    """One row per sample, in the source's own order."""

    key: np.ndarray  # bytes: the name within a shard, without a dot in its last part
    label: np.ndarray
    size: np.ndarray  # bytes of the payload, or an upper bound if it is made on reading


@dataclass(frozen=True, eq=False)
class Source:
    name: str
    classes: tuple[str, ...]
    splits: dict[str, Listing]
    read: Callable[[str, int], bytes]  # (split, row) -> payload; runs in several processes
    identity: dict[str, Any] = field(default_factory=dict)  # what else decides the payloads
    notes: tuple[str, ...] = ()  # what the user should know about the source


def listing(key: Sequence[str | bytes], label: Iterable[int], size: Iterable[int]) -> Listing:
    keys = np.array([k.encode("utf-8", "surrogateescape") if isinstance(k, str) else k for k in key], "S")
    return Listing(keys, np.array(label, np.int32), np.array(size, np.int64))


def encoded(image: "Image", form: str) -> bytes:
    """The file of an image that a source makes; PNG has no use for the two settings."""
    file = io.BytesIO()
    image.save(file, form, quality=95, subsampling=0)
    return file.getvalue()


@dataclass(frozen=True)
class Expectation:
    """How many samples a published set has."""

    classes: int
    samples: dict[str, int]
    per_class: dict[str, tuple[int, int]]  # the least and the most samples of any class


# The paper's Table 2. Flowers trains on its training and validation images, Pets on trainval. The bounds per
# class are those of the published sets; the totals decide, the bounds show which class is wrong.
TABLE_2 = {
    "imagenet": Expectation(
        1000,
        {"train": 1_281_167, "validation": 50_000},
        {"train": (732, 1300), "validation": (50, 50)},
    ),
    "flowers": Expectation(
        102, {"train": 2_040, "validation": 6_149}, {"train": (20, 20), "validation": (20, 238)}
    ),
    "pets": Expectation(
        37, {"train": 3_680, "validation": 3_669}, {"train": (80, 100), "validation": (80, 100)}
    ),
    "cifar10": Expectation(
        10, {"train": 50_000, "validation": 10_000}, {"train": (5000, 5000), "validation": (1000, 1000)}
    ),
    "cifar100": Expectation(
        100, {"train": 50_000, "validation": 10_000}, {"train": (500, 500), "validation": (100, 100)}
    ),
}


def check_counts(source: Source, expectation: Expectation) -> Source:
    """The source; an incomplete published set is refused with the counts and the classes that are wrong."""
    if len(source.classes) != expectation.classes:
        raise UserError(
            f"{source.name} has {expectation.classes} classes, these files have {len(source.classes)}: "
            f"{some(source.classes)}"
        )
    for split, expected in expectation.samples.items():
        if split not in source.splits:
            raise UserError(f"{source.name} has no {split} split here: valid are {some(list(source.splits))}")
        counts = np.bincount(source.splits[split].label, minlength=len(source.classes))
        least, most = expectation.per_class[split]
        wrong = np.flatnonzero((counts < least) | (counts > most))
        if not len(wrong) and counts.sum() == expected:
            continue
        bound = str(least) if least == most else f"{least} to {most}"
        detail = some([f"{source.classes[c]} has {counts[c]}" for c in wrong])
        if not len(wrong):
            fewest = np.argsort(counts, kind="stable")[:5]
            detail = "fewest: " + some([f"{source.classes[c]} has {counts[c]}" for c in fewest])
        raise UserError(
            f"{source.name} {split} has {expected:,} images, {bound} a class; found {counts.sum():,} "
            f"({detail}). A part of a set is packed with the source kind `folder`"
        )
    return source
