"""Views of one image, written into slots of a batch: the fast path.

One decode serves all views of an image, and of a repacked file only the part that they need is decoded.
"""

from collections.abc import Sequence

import numpy as np

from pipeline import randaugment, resample
from pipeline.augment import Augmentation
from pipeline.bands import Box
from pipeline.decode import StoredImage, decode, decode_box
from pipeline.draws import ViewDraws


def use_one_thread() -> None:
    """For a worker process: torch's and OpenCV's own threads would only contend with the other workers."""
    resample.use_one_thread()
    randaugment.use_one_thread()


def render_views(
    image: StoredImage,
    draws: ViewDraws,
    indices: Sequence[int],
    out: Sequence[np.ndarray],
    aug: Augmentation,
) -> None:
    """Rows `indices` of `draws`, all views of this image, into `out`: one uint8 [S, S, 3] slot for each."""
    crops = draws.crop[list(indices)].tolist()
    pixels, top, left = decode_box(image, _around(crops))
    # Two passes: code and tables of the resize stay in the caches.
    for slot, (row, column, height, width) in zip(out, crops, strict=True):
        window = pixels[row - top : row - top + height, column - left : column - left + width]
        resample.resize_into(slot, window, aug.interpolation)
    for index, slot in zip(indices, out, strict=True):
        view = randaugment.mirrored(slot) if draws.flip[index] else slot
        view = randaugment.randaugment(view, draws.operation[index], draws.argument[index], aug.fill)
        if view is not slot:
            slot[:] = view


def _around(crops: list[list[int]]) -> Box:
    """The smallest box that holds them all; crops are (top, left, height, width)."""
    top, left = (min(crop[side] for crop in crops) for side in (0, 1))
    bottom, right = (max(crop[side] + crop[side + 2] for crop in crops) for side in (0, 1))
    return top, left, bottom, right


def render_evaluation(image: StoredImage, out: np.ndarray, aug: Augmentation) -> None:
    """Resize the shorter edge, crop the centre, into `out`: uint8 [S, S, 3]."""
    size, (width, height) = aug.image_size, resized(aug, image.width, image.height)
    pixels = decode(image)
    whole = np.empty((height, width, 3), np.uint8)
    resample.resize_into(whole, pixels, aug.interpolation)
    # torchvision's CenterCrop rounds half to even; the resized edges are never shorter than the crop.
    top, left = round((height - size) / 2), round((width - size) / 2)
    out[:] = whole[top : top + size, left : left + size]


def resized(aug: Augmentation, width: int, height: int) -> tuple[int, int]:
    """torchvision's Resize: the shorter edge becomes `resized_edge`, the longer one is rounded down."""
    edge = aug.resized_edge
    if width <= height:
        return edge, int(edge * height / width)
    return int(edge * width / height), edge
