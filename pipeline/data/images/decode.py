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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import WorkFailed
from tnt.untrusted.pictures import endless, excess

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile


class ImageKind(IntEnum):
    """Which decoder a payload takes."""

    JPEG = 0  # three components, sequential, 8 bit
    PROGRESSIVE = 1
    CMYK = 2  # four components, CMYK or YCCK
    GREY = 3  # a JPEG of one component
    PNG = 4
    OTHER = 5  # any other form that Pillow decodes (GIF, BMP, …), and files that simplejpeg refuses


FAST = (ImageKind.JPEG, ImageKind.GREY, ImageKind.PROGRESSIVE)  # decoded by simplejpeg, all others by Pillow
# Without PostScript and similar formats, for which Pillow starts another program.
PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
ORIENTATION = 0x0112  # EXIF's tag; 1 is upright


class DecodeError(WorkFailed):
    """The bytes are not an image that can be decoded, or not the image that the manifest recorded."""


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A payload and what is known of it: from a manifest, or by looking at it."""

    payload: bytes | memoryview
    kind: int  # ImageKind
    width: int
    height: int
    flaw: str = ""  # what simplejpeg said about an image that Pillow reads nonetheless
    turned: bool = False  # EXIF asks for a rotation, which is not applied


def decode(image: StoredImage) -> np.ndarray:
    """All pixels; DecodeError if the image cannot be decoded or has another size than recorded."""
    pixels = _decode_with_simplejpeg(image) if image.kind in FAST else decode_with_pillow(image)
    _check_size(image, *pixels.shape[:2])
    return pixels


def _check_size(image: StoredImage, height: int, width: int) -> None:
    if (height, width) != (image.height, image.width):
        recorded = f"{image.width}×{image.height} are recorded"
        raise DecodeError(f"the image has {width}×{height} pixels where {recorded}")


def decode_with_pillow(image: StoredImage) -> np.ndarray:
    with _opened(image.payload) as opened:
        return np.array(opened.convert("RGB"))  # a copy: torch needs a writable array


def _decode_with_simplejpeg(image: StoredImage) -> np.ndarray:
    import simplejpeg

    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(image.payload)
        _check_size(image, height, width)  # before memory is taken for what a header claims
        if problem := excess(b"", width, height):
            raise DecodeError(problem)
        return simplejpeg.decode_jpeg(image.payload, "RGB", strict=True)
    except DecodeError:
        raise
    except ValueError as error:
        raise DecodeError(f"the image cannot be decoded: {error}") from None


@contextmanager
def _opened(payload: bytes | memoryview) -> Iterator["ImageFile"]:
    """By Pillow; DecodeError for whatever it says of the bytes while they are read."""
    from PIL import Image

    with warnings.catch_warnings():
        Image.MAX_IMAGE_PIXELS = None  # `excess` is asked instead
        warnings.simplefilter("ignore")  # about broken EXIF; an image that cannot be decoded raises
        try:
            with Image.open(io.BytesIO(payload), formats=PILLOW_FORMATS) as image:
                if problem := excess(bytes(payload), image.width, image.height):
                    raise DecodeError(problem)
                yield image
        except DecodeError:
            raise
        except Exception as error:  # a decoder may raise anything on damaged bytes
            reason = str(error).split(" <_io")[0] or type(error).__name__
            raise DecodeError(f"the image cannot be decoded: {reason}") from None


def identify(payload: bytes) -> StoredImage:
    """What the headers say; DecodeError if they are not those of an image, or of one too large to decode."""
    if not payload:
        raise DecodeError("it is empty")
    if endless(payload):
        raise DecodeError("its header does not end")
    with _opened(payload) as image:
        if image.format not in ("JPEG", "MPO"):
            kind = ImageKind.PNG if image.format == "PNG" else ImageKind.OTHER
            return StoredImage(payload, kind, image.width, image.height)
        sequential = ImageKind.PROGRESSIVE if "progressive" in image.info else ImageKind.JPEG
        kind = {"L": ImageKind.GREY, "CMYK": ImageKind.CMYK}.get(image.mode, sequential)
        turned = "exif" in image.info and _is_turned(image)
        return StoredImage(payload, kind, image.width, image.height, turned=turned)


def _is_turned(image: "ImageFile") -> bool:
    try:
        return image.getexif().get(ORIENTATION) in range(2, 9)
    except Exception:  # many files carry broken EXIF, which says nothing about the pixels
        return False


def inspect_image(payload: bytes) -> StoredImage:
    """Decode a payload completely; DecodeError if that fails."""
    found = identify(payload)
    if found.kind in FAST:
        import simplejpeg

        try:
            shape = simplejpeg.decode_jpeg(payload, strict=True).shape
            assert shape == (found.height, found.width, 3), (shape, found)
            return found
        except ValueError as error:
            found = replace(found, kind=ImageKind.OTHER, flaw=str(error))
    decode(found)
    return found
