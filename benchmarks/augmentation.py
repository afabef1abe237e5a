"""Microseconds of each stage of augmentation beside Pillow's and timm's, on one core, in one run.

    python benchmarks/augmentation.py --rounds 40

Every round times ten calls of every stage of both, in turn, so that a machine whose speed drifts drifts for
both; the figures are medians over rounds of a call's mean processor time (of all threads, so that neighbours
on a shared machine are not counted), the ratio that of the medians. Images: scikit-learn's two photographs at
ImageNet's usual size (500 × 375) and weight (about 110 KB).
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable
from typing import TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data.transforms_factory import create_transform

from pipeline.data.augmentation import views
from pipeline.data.augmentation.batch import finish_train
from pipeline.data.augmentation.draws import ViewDraws, draw_batch, draw_views
from pipeline.data.augmentation.policy import OPERATIONS
from pipeline.data.augmentation.randaugment import apply_operation, use_one_thread
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.images.decode import ImageKind, StoredImage, decode, decode_with_pillow
from pipeline.data.images.resample import resize_into
from tests.pipeline.data.augmentation import oracle

Stage = Callable[[int], object]  # takes the round's number
Name = TypeVar("Name")
AUG = Augmentation()
VIEWS, BATCH = 512, 64
CALLS = 10  # of a stage in a row, as a worker makes them


def photographs() -> list[StoredImage]:
    images = []
    for name in ("china.jpg", "flower.jpg"):
        photo = Image.fromarray(load_sample_image(name)).resize((500, 375), Image.Resampling.LANCZOS)
        files = [_jpeg(photo, quality) for quality in (90, 92, 94, 95, 96, 97, 98)]
        payload = min(files, key=lambda file: abs(len(file) - 110_000))
        images.append(StoredImage(payload, ImageKind.JPEG, 500, 375))
    return images


def _jpeg(photo: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=quality)
    return file.getvalue()


def pixel_stages(images: list[StoredImage], draws: ViewDraws) -> dict[str, tuple[Stage, Stage]]:
    """Decoding and resizing."""
    pixels = [decode(image) for image in images]
    slot = np.empty((224, 224, 3), np.uint8)

    def window(view: int) -> np.ndarray:
        top, left, height, width = draws.crop[view % VIEWS].tolist()
        return pixels[view % 2][top : top + height, left : left + width]

    return {
        "decode": (lambda i: decode(images[i % 2]), lambda i: decode_with_pillow(images[i % 2])),
        "crop and resize": (
            lambda i: resize_into(slot, window(i), "bicubic"),
            lambda i: oracle.random_view(pixels[i % 2], draws, i % VIEWS, AUG),
        ),
    }


def operation_stages(images: list[StoredImage]) -> dict[str, tuple[Stage, Stage]]:
    """Each RandAugment operation at magnitude 9, the sign alternating."""
    view = np.ascontiguousarray(decode(images[0])[100:324, 150:374])
    arguments = {"Rotate": 27.0, "Posterize": 1.0, "Solarize": 26.0, "SolarizeAdd": 99.0}
    arguments |= dict.fromkeys(("Color", "Contrast", "Brightness", "Sharpness"), 1.81)
    arguments |= dict.fromkeys(("ShearX", "ShearY"), 0.27) | dict.fromkeys(OPERATIONS[-2:], 0.405)

    def ours(name: str) -> Stage:
        return lambda i: apply_operation(name, view, _signed(name, arguments.get(name, 0.0), i), AUG.fill)

    def theirs(number: int, name: str) -> Stage:
        def one(i: int) -> ViewDraws:
            argument = np.array([[_signed(name, arguments.get(name, 0.0), i)]])
            cubic = np.zeros((1, 2), bool)
            return ViewDraws(np.zeros((1, 4)), np.zeros(1), np.array([[number]]), argument, cubic)

        return lambda i: oracle.augmented(view, one(i), 0, AUG)

    return {name: (ours(name), theirs(number, name)) for number, name in enumerate(OPERATIONS)}


def _signed(name: str, argument: float, turn: int) -> float:
    return -argument if turn % 2 and name.startswith(("Rotate", "Shear", "Translate")) else argument


def view_stages(images: list[StoredImage], draws: ViewDraws) -> dict[str, tuple[Stage, Stage]]:
    """A whole view from bytes to uint8 pixels; timm's is its own random transform as its loader runs it."""
    transform = create_transform(
        224, is_training=True, auto_augment=AUG.randaugment, interpolation="bicubic", use_prefetcher=True
    )
    slots = list(np.empty((3, 224, 224, 3), np.uint8))

    def timms(i: int) -> object:
        with Image.open(io.BytesIO(images[i % 2].payload)) as opened:
            return transform(opened.convert("RGB"))

    def ours(repeats: int) -> Stage:
        def render(i: int) -> None:
            chosen = [(repeats * i + k) % VIEWS for k in range(repeats)]
            views.render_views(images[i % 2], draws, chosen, slots[:repeats], AUG)

        return render

    return {
        "view": (ours(1), timms),
        "three views of one decode": (ours(3), lambda i: [timms(i) for _ in range(3)]),
    }


def own_stages() -> dict[str, Stage]:
    """Ours alone; per batch of 64 views."""
    slots, side = np.arange(BATCH), np.full(BATCH, 400)
    uint8 = torch.zeros(BATCH, 224, 224, 3, dtype=torch.uint8)
    labels = torch.zeros(BATCH, dtype=torch.int64)
    return {
        "draw 64 views": lambda i: draw_views(AUG, 0, i, slots, side, side),
        "draw what the batch needs": lambda i: draw_batch(AUG, 0, i, i, slots, slots),
        "draws and finish 64 views (CPU, 1 thread)": lambda i: finish_train(
            uint8, labels, AUG, 1000, seed=0, epoch=i, step=i, position=slots, slot=slots
        ),
    }


def microseconds(stages: dict[Name, Stage], rounds: int) -> dict[Name, float]:
    times: dict[Name, list[float]] = {name: [] for name in stages}
    for turn in range(rounds + 1):
        for name, stage in stages.items():
            start = time.process_time()
            for call in range(CALLS):
                stage(CALLS * turn + call)
            times[name].append((time.process_time() - start) / CALLS)
    return {name: 1e6 * statistics.median(values[1:]) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    use_one_thread()
    images = photographs()
    draws = draw_views(AUG, 0, 0, np.arange(VIEWS), np.full(VIEWS, 500), np.full(VIEWS, 375))
    print(f"payloads: {', '.join(str(len(image.payload)) for image in images)} bytes")
    pairs = pixel_stages(images, draws) | operation_stages(images) | view_stages(images, draws)
    both = {(name, side): pair[side] for name, pair in pairs.items() for side in (0, 1)}
    medians = microseconds(both, rounds)
    print(f"{'µs, medians':28}{'ours':>9}{'Pillow, timm':>14}{'ratio':>7}")
    for name in pairs:
        ours, theirs = medians[name, 0], medians[name, 1]
        print(f"{name:28}{ours:9.0f}{theirs:14.0f}{theirs / ours:7.2f}")
    for name, value in microseconds(own_stages(), rounds).items():
        print(f"{name:34}{value:9.0f}")


if __name__ == "__main__":
    main()
