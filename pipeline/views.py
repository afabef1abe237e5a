"""Views of one image, written into slots of a batch: the fast path."""

from collections.abc import Sequence

import numpy as np

from pipeline.augment import Augmentation
from pipeline.decode import StoredImage, decode
from pipeline.draws import ViewDraws
from pipeline.reference import augmented, centre_crop, random_view


def render_views(
    image: StoredImage,
    draws: ViewDraws,
    indices: Sequence[int],
    out: Sequence[np.ndarray],
    aug: Augmentation,
) -> None:
    """Rows `indices` of `draws`, all views of this image, into `out`: one uint8 [S, S, 3] slot per index.

    The image is decoded once.
    """
    pixels = decode(image)
    for index, slot in zip(indices, out, strict=True):
        slot[:] = augmented(random_view(pixels, draws, index, aug), draws, index, aug)


def render_evaluation(image: StoredImage, out: np.ndarray, aug: Augmentation) -> None:
    """Resize the shorter edge, crop the centre, into `out`: uint8 [S, S, 3]."""
    out[:] = centre_crop(decode(image), aug)
