"""Views of one image, written into slots of a batch: the fast path. One decode serves all views."""

from collections.abc import Sequence

import numpy as np

from pipeline.data.augmentation.draws import ViewDraws
from pipeline.data.augmentation.policy import NOTHING
from pipeline.data.augmentation.randaugment import mirrored, randaugment
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.images.decode import StoredImage, decode
from pipeline.data.images.resample import resize_into


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
    pixels = decode(image)
    # Slots are not in the processor's caches: each is written once, with the finished view.
    changes = flips | (draws.operation[chosen] != NOTHING).any(1)
    views = [np.empty_like(slot) if change else slot for slot, change in zip(out, changes, strict=True)]
    # In two passes, so that code and tables of the resize stay in the caches.
    for index, view, (top, left, height, width) in zip(chosen, views, crops, strict=True):
        window = pixels[top : top + height, left : left + width]
        resize_into(view, window, "bilinear" if draws.linear[index, 0] else "bicubic")
    for index, slot, view, flip in zip(chosen, out, views, flips, strict=True):
        turned = mirrored(view) if flip else view
        done = randaugment(
            turned, draws.operation[index], draws.argument[index], draws.linear[index, 1:], aug.fill
        )
        if done is not slot:
            slot[:] = done


def render_evaluation(image: StoredImage, out: np.ndarray, aug: Augmentation) -> None:
    """Resize the shorter edge, crop the centre, into `out`: uint8 [S, S, 3]."""
    size, shorter = aug.image_size, min(image.width, image.height)
    # As torchvision's Resize: the longer edge is rounded down.
    width, height = (int(aug.resized_edge * edge / shorter) for edge in (image.width, image.height))
    pixels = decode(image)
    whole = np.empty((height, width, 3), np.uint8)
    resize_into(whole, pixels, aug.evaluation_interpolation)
    # torchvision's CenterCrop rounds half to even; the resized edges are never shorter than the crop.
    top, left = round((height - size) / 2), round((width - size) / 2)
    out[:] = whole[top : top + size, left : left + size]
