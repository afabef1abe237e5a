"""Views of one image, written into slots of a batch: the fast path.

One decode serves all views of an image, and of a repacked file only the part that they need is decoded.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.data.augmentation import randaugment
from pipeline.data.augmentation.draws import ViewDraws
from pipeline.data.augmentation.policy import NOTHING
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.images import resample
from pipeline.data.images.decode import StoredImage, decode, decode_box
from pipeline.data.images.jpeg_crop import Box


def render_views(
    image: StoredImage,
    draws: ViewDraws,
    indices: Sequence[int],
    out: Sequence[np.ndarray],
    aug: Augmentation,
) -> None:
    """Rows `indices` of `draws`, all views of this image, into `out`: one uint8 [S, S, 3] slot for each."""
    chosen = list(indices)
    crops, flips = draws.crop[chosen].tolist(), draws.flip[chosen]
    pixels, top, left = decode_box(image, _around(crops))
    # A slot lies in memory that no cache holds: it is written once, with the view as it stays.
    changes = flips | (draws.operation[chosen] != NOTHING).any(1)
    views = [np.empty_like(slot) if change else slot for slot, change in zip(out, changes, strict=True)]
    # Two passes: code and tables of the resize stay in the caches.
    for view, (row, column, height, width) in zip(views, crops, strict=True):
        window = pixels[row - top : row - top + height, column - left : column - left + width]
        resample.resize_into(view, window, aug.interpolation)
    for index, slot, view, flip in zip(chosen, out, views, flips, strict=True):
        turned = randaugment.mirrored(view) if flip else view
        done = randaugment.randaugment(turned, draws.operation[index], draws.argument[index], aug.fill)
        if done is not slot:
            slot[:] = done


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
