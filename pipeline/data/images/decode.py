"""The bytes of an image file to pixels: uint8 [rows, columns, 3], RGB.

simplejpeg's strict mode and Pillow decode to the same pixels (both use libjpeg-turbo), but simplejpeg refuses
files that Pillow repairs. EXIF orientation is ignored, as timm and DeiT ignore it.

`inspect_image` decodes an image once before it is packed. Published sets hold odd files: Oxford-IIIT Pets
has PNG and GIF files named .jpg; it and ImageNet have JPEG files with stray bytes, which decoders warn of and
every loader trains on. Those are packed as they are, marked so that Pillow decodes them, and reported. An
image that Pillow cannot decode completely is damaged.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np

from pipeline.data.images.jpeg import ImageKind, NotJpeg, read_frame
from pipeline.errors import WorkFailed

FAST = (ImageKind.JPEG, ImageKind.GREY, ImageKind.PROGRESSIVE)  # decoded by simplejpeg, all others by Pillow
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Without PostScript and similar formats, for which Pillow starts another program.
PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 100_000_000


class DecodeError(WorkFailed):
    """The bytes are not an image, or not the image that the manifest recorded."""


class DamagedImage(Exception):
    """The payload is not an image that can be decoded; the message says why."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A payload and what the manifest says about it."""

    payload: bytes | memoryview
    kind: int  # ImageKind
    width: int
    height: int


@dataclass(frozen=True)
class Inspection:
    kind: ImageKind
    width: int
    height: int
    flaw: str = ""  # what simplejpeg said about an image that Pillow reads nonetheless
    turned: bool = False  # EXIF asks for a rotation, which is not applied


def decode(image: StoredImage) -> np.ndarray:
    """All pixels; DecodeError if the image cannot be decoded or has another size than recorded."""
    pixels = _decode_with_simplejpeg(image.payload) if image.kind in FAST else decode_with_pillow(image)
    if pixels.shape != (image.height, image.width, 3):
        raise DecodeError(
            f"the image has {pixels.shape[1]}×{pixels.shape[0]} pixels where {image.width}×{image.height} "
            f"are recorded"
        )
    return pixels


def decode_with_pillow(image: StoredImage) -> np.ndarray:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about broken EXIF; an image that cannot be decoded raises
        try:
            with Image.open(io.BytesIO(image.payload), formats=PILLOW_FORMATS) as opened:
                return np.array(opened.convert("RGB"))  # a copy: torch needs a writable array
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DecodeError(f"the image cannot be decoded: {error}") from None


def _decode_with_simplejpeg(payload: bytes | memoryview) -> np.ndarray:
    import simplejpeg

    try:
        return simplejpeg.decode_jpeg(payload, "RGB", strict=True)
    except ValueError as error:
        raise DecodeError(f"the image cannot be decoded: {error}") from None


def inspect_image(payload: bytes) -> Inspection:
    """Decode a payload completely; DamagedImage if that fails."""
    if not payload:
        raise DamagedImage("it is empty")
    if payload[:2] != b"\xff\xd8":
        return _inspect_with_pillow(
            payload, ImageKind.PNG if payload.startswith(PNG_MAGIC) else ImageKind.OTHER
        )
    try:
        frame = read_frame(payload)
    except NotJpeg as error:
        raise DamagedImage(str(error)) from None
    if frame.width * frame.height > MAX_PIXELS:
        raise DamagedImage(f"{frame.width}×{frame.height} pixels are more than {MAX_PIXELS}")
    turned = frame.orientation != 1
    if frame.kind not in FAST:
        return _inspect_with_pillow(payload, frame.kind, turned=turned)
    import simplejpeg

    try:
        shape = simplejpeg.decode_jpeg(payload, strict=True).shape
    except ValueError as error:
        return _inspect_with_pillow(payload, ImageKind.OTHER, flaw=str(error), turned=turned)
    assert shape == (frame.height, frame.width, 3), (shape, frame)
    return Inspection(frame.kind, frame.width, frame.height, turned=turned)


def _inspect_with_pillow(payload: bytes, kind: ImageKind, flaw: str = "", turned: bool = False) -> Inspection:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about broken EXIF; an image that cannot be decoded raises
        try:
            with Image.open(io.BytesIO(payload), formats=PILLOW_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DamagedImage(f"{image.width}×{image.height} pixels are more than {MAX_PIXELS}")
                pixels = image.convert("RGB")
        except DamagedImage:
            raise
        except Exception as error:  # a decoder may raise anything on damaged bytes
            reason = str(error).split(" <_io")[0] or type(error).__name__
            raise DamagedImage(f"{reason} ({flaw})" if flaw else reason) from None
    return Inspection(kind, pixels.width, pixels.height, flaw, turned)
