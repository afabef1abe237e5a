"""Proof that an image can be read: each one is decoded once, strictly, before it enters a shard.

Published sets hold odd files. Oxford-IIIT Pets has PNG and GIF files named .jpg; it and ImageNet have JPEG
files with stray bytes, which decoders warn of and which every loader trains on. Those are kept, byte for
byte, marked so that they take Pillow's path, and named. What Pillow cannot decode to the last row is damaged.
"""

import io
import warnings
from dataclasses import dataclass

from pipeline.data.images.jpeg import NotJpeg, read_frame
from pipeline.data.shards.manifest import ImageKind

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Never PostScript and its like, which Pillow would hand to another program.
PILLOW_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 100_000_000
FAST = (ImageKind.JPEG, ImageKind.PROGRESSIVE, ImageKind.GREY)


class DamagedImage(Exception):
    """The payload is not an image that can be decoded; the message says why."""


@dataclass(frozen=True)
class Inspection:
    kind: ImageKind
    width: int
    height: int
    flaw: str = ""  # what the strict decoder said of an image that Pillow reads nonetheless
    turned: bool = False  # EXIF asks for a rotation, which nobody applies


def inspect_image(payload: bytes) -> Inspection:
    """Decode a payload in full; DamagedImage if that fails."""
    if not payload:
        raise DamagedImage("it is empty")
    if payload[:2] != b"\xff\xd8":
        return _by_pillow(payload, ImageKind.PNG if payload.startswith(PNG_MAGIC) else ImageKind.OTHER)
    try:
        frame = read_frame(payload)
    except NotJpeg as error:
        raise DamagedImage(str(error)) from None
    if frame.width * frame.height > MAX_PIXELS:
        raise DamagedImage(f"{frame.width}×{frame.height} pixels are more than {MAX_PIXELS}")
    turned = frame.orientation != 1
    if frame.kind not in FAST:
        return _by_pillow(payload, frame.kind, turned=turned)
    import simplejpeg

    try:
        shape = simplejpeg.decode_jpeg(payload, strict=True).shape
    except ValueError as error:
        return _by_pillow(payload, ImageKind.OTHER, flaw=str(error), turned=turned)
    assert shape == (frame.height, frame.width, 3), (shape, frame)
    return Inspection(frame.kind, frame.width, frame.height, turned=turned)


def _by_pillow(payload: bytes, kind: ImageKind, flaw: str = "", turned: bool = False) -> Inspection:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of broken EXIF; what matters raises
        try:
            with Image.open(io.BytesIO(payload), formats=PILLOW_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DamagedImage(f"{image.width}×{image.height} pixels are more than {MAX_PIXELS}")
                pixels = image.convert("RGB")
        except DamagedImage:
            raise
        except Exception as error:  # whatever a decoder raises over bytes from outside, they are its reason
            reason = str(error).split(" <_io")[0] or type(error).__name__
            raise DamagedImage(f"{reason} ({flaw})" if flaw else reason) from None
    return Inspection(kind, pixels.width, pixels.height, flaw, turned)
