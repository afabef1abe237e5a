"""The same views by PIL and timm, from the same draws: slow; tests compare the fast path with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.data.augmentation.draws import ViewDraws
from pipeline.data.augmentation.policy import NOTHING, OPERATIONS
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.images.decode import StoredImage, decode_with_pillow

NO_ARGUMENT = ("AutoContrast", "Equalize", "Invert")  # operations without an argument
INTEGER_ARGUMENT = ("Posterize", "Solarize", "SolarizeAdd")  # operations with a whole number as argument


def render_views(
    image: StoredImage,
    draws: ViewDraws,
    indices: Sequence[int],
    out: Sequence[np.ndarray],
    aug: Augmentation,
) -> None:
    """As views.render_views."""
    pixels = decode_with_pillow(image)
    for index, slot in zip(indices, out, strict=True):
        slot[:] = augmented(random_view(pixels, draws, index, aug), draws, index, aug)


def render_evaluation(image: StoredImage, out: np.ndarray, aug: Augmentation) -> None:
    """As views.render_evaluation."""
    out[:] = centre_crop(decode_with_pillow(image), aug)


def random_view(pixels: np.ndarray, draws: ViewDraws, index: int, aug: Augmentation) -> np.ndarray:
    from PIL import Image

    top, left, height, width = (int(edge) for edge in draws.crop[index])
    crop = Image.fromarray(pixels).crop((left, top, left + width, top + height))
    view = crop.resize((aug.image_size, aug.image_size), _filter(draws.linear[index, 0]))
    if draws.flip[index]:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(view)


def augmented(pixels: np.ndarray, draws: ViewDraws, index: int, aug: Augmentation) -> np.ndarray:
    """The view's operations by timm's own functions."""
    from PIL import Image
    from timm.data.auto_augment import NAME_TO_OP

    view = Image.fromarray(pixels)
    rows = zip(draws.operation[index], draws.argument[index], draws.linear[index, 1:], strict=True)
    for operation, argument, linear in rows:
        if operation == NOTHING:
            continue
        name = OPERATIONS[operation]
        value = int(argument) if name in INTEGER_ARGUMENT else float(argument)
        arguments = () if name in NO_ARGUMENT else (value,)
        apply: Any = NAME_TO_OP[name]
        view = apply(view, *arguments, fillcolor=aug.fill, resample=_filter(linear))
    return np.asarray(view)


def centre_crop(pixels: np.ndarray, aug: Augmentation) -> np.ndarray:
    from PIL import Image
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    resize: Any = Resize(aug.resized_edge, interpolation=InterpolationMode(aug.evaluation_interpolation))
    crop: Any = CenterCrop(aug.image_size)
    return np.asarray(crop(resize(Image.fromarray(pixels))))


def _filter(linear: bool) -> Any:
    from PIL import Image

    return Image.Resampling.BILINEAR if linear else Image.Resampling.BICUBIC
