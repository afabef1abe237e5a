"""A set of JPEG files of ImageNet's sizes and weight, made from scikit-learn's two photographs.

Crops of photographs, rescaled, with a little noise: entropy as cameras make it, which is what decoders spend
their time on. Three of four are 4:2:0, as files on the web are.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.source import Source, listing
from pipeline.data.shards.manifest import Manifest

# Width, height and how often: ImageNet's most frequent sizes stand for their like.
SIZES = ((500, 375, 0.55), (375, 500, 0.2), (500, 333, 0.15), (333, 500, 0.05), (400, 400, 0.05))
WEIGHT = 104_000  # bytes, ImageNet's mean
SPREAD = 0.35  # of the logarithm of a file's weight
QUALITIES = range(70, 99, 2)


def photograph(number: int) -> bytes:
    draw = np.random.default_rng([7, number])
    width, height, _ = SIZES[draw.choice(len(SIZES), p=[share for *_, share in SIZES])]
    whole = Image.fromarray(load_sample_image(("china.jpg", "flower.jpg")[number % 2]))
    share = draw.uniform(0.55, 1)
    w = min(whole.width, whole.height * width / height) * share
    h = w * height / width
    left, top = draw.uniform(0, whole.width - w), draw.uniform(0, whole.height - h)
    crop = whole.resize((width, height), Image.Resampling.LANCZOS, box=(left, top, left + w, top + h))
    pixels = np.asarray(crop) + draw.normal(0, 2.0, (height, width, 1))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    target = WEIGHT * np.exp(SPREAD * draw.normal() - SPREAD**2 / 2)
    subsampling = 2 if draw.random() < 0.75 else 0
    low, high = 0, len(QUALITIES) - 1
    while low < high:
        middle = (low + high) // 2
        if len(_jpeg(image, QUALITIES[middle], subsampling)) < target:
            low = middle + 1
        else:
            high = middle
    return _jpeg(image, QUALITIES[low], subsampling)


def make_set(root: Path, count: int = 1536) -> Manifest:
    """The set under ROOT, made if it is not there."""
    if not (root / "train.manifest.json").exists():
        names = listing([f"photo-{i:05d}" for i in range(count)], np.arange(count) % 10, [2 * WEIGHT] * count)
        classes = tuple(f"class {label}" for label in range(10))
        source = Source("photographs", classes, {"train": names}, lambda _, row: photograph(row))
        make(source, root, Packing(samples_per_shard=256))
    return Manifest.read(root, "train")


def _jpeg(image: Image.Image, quality: int, subsampling: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()
