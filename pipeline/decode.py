"""A stored image's bytes to pixels: RGB, uint8, rows × columns × 3; EXIF orientation is ignored."""

import io
from dataclasses import dataclass

import numpy as np

from pipeline.errors import WorkFailed
from pipeline.manifest import ImageKind


class DecodeError(WorkFailed):
    """The bytes are no image, or not the image that the manifest recorded."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A payload and what the manifest knows of it."""

    payload: bytes | memoryview
    kind: int  # ImageKind
    width: int
    height: int
    rows: np.ndarray  # Manifest.rows(sample): where each MCU row's data begins; empty without restart bands


def decode(image: StoredImage) -> np.ndarray:
    """All pixels."""
    import simplejpeg
    from PIL import Image

    try:
        if image.kind in (ImageKind.JPEG, ImageKind.GREY, ImageKind.PROGRESSIVE):
            pixels = simplejpeg.decode_jpeg(image.payload, "RGB", strict=True)
        else:
            with Image.open(io.BytesIO(image.payload)) as opened:
                pixels = np.asarray(opened.convert("RGB"))
    except (ValueError, OSError) as error:
        raise DecodeError(f"cannot decode the image: {error}") from error
    if pixels.shape != (image.height, image.width, 3):
        raise DecodeError(
            f"the image has {pixels.shape[1]}×{pixels.shape[0]} pixels, "
            f"the manifest says {image.width}×{image.height}"
        )
    return pixels
