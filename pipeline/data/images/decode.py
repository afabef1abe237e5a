"""A stored image's bytes to pixels: uint8 [rows, columns, 3], RGB.

simplejpeg's strict mode and Pillow decode to the same pixels (both are libjpeg-turbo); the first refuses what
the second would repair. EXIF orientation is ignored, as timm and DeiT ignore it.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np

from pipeline.data.images.jpeg_crop import Box, window
from pipeline.data.shards.manifest import ImageKind
from pipeline.errors import WorkFailed

FAST = (ImageKind.JPEG, ImageKind.GREY, ImageKind.PROGRESSIVE)
# Never PostScript and its like, which Pillow would hand to another program.
PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")


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
    pixels = _fast(image.payload) if image.kind in FAST else decode_with_pillow(image)
    _check_size(pixels, image.height, image.width)
    return pixels


def decode_box(image: StoredImage, box: Box) -> tuple[np.ndarray, int, int]:
    """Pixels that hold the box, and the row and column that they begin with: all of them without bands."""
    if not len(image.rows):
        return decode(image), 0, 0
    try:
        part = window(image.payload, image.rows, (image.height, image.width), box)
    except ValueError as error:
        raise DecodeError(f"the image is not what its restart rows say: {error}") from None
    pixels = _fast(part.payload)
    _check_size(pixels, part.height, part.width)
    return pixels, part.top, part.left


def decode_with_pillow(image: StoredImage) -> np.ndarray:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken EXIF; what matters raises
        try:
            with Image.open(io.BytesIO(image.payload), formats=PILLOW_FORMATS) as opened:
                return np.array(opened.convert("RGB"))  # a copy: torch wants it writable
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DecodeError(f"the image cannot be decoded: {error}") from None


def _fast(payload: bytes | bytearray | memoryview) -> np.ndarray:
    import simplejpeg

    try:
        return simplejpeg.decode_jpeg(payload, "RGB", strict=True)
    except ValueError as error:
        raise DecodeError(f"the image cannot be decoded: {error}") from None


def _check_size(pixels: np.ndarray, height: int, width: int) -> None:
    if pixels.shape != (height, width, 3):
        raise DecodeError(
            f"the image has {pixels.shape[1]}×{pixels.shape[0]} pixels where {width}×{height} are recorded"
        )
