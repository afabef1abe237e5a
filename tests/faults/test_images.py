"""Images that cost more than they are worth, for both who decode them."""

import io
import re
import struct
import zlib

import pytest
from PIL import Image

from pipeline.data.images.decode import DecodeError, ImageKind, StoredImage, decode, inspect_image
from tests.faults.limits import bounded
from tests.pipeline.pictures import jpeg, png
from tnt.images import ImageError, Item, open_image
from tnt.untrusted.pictures import RAISED


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def claimed_png(width: int, height: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def claimed_jpeg(width: int, height: int) -> bytes:
    content = bytearray(jpeg())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def scanned(times: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    content = jpeg(progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * times + content[-2:]


def bomb(form: str) -> bytes:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, form)
    return file.getvalue()


IMAGES = {
    "13,000 × 13,000 pixels of JPEG": claimed_jpeg(13_000, 13_000),
    "65,000 × 65,000 pixels of JPEG": claimed_jpeg(65_000, 65_000),
    "13,000 × 13,000 pixels of PNG": claimed_png(13_000, 13_000),
    "2³⁰ × 2³⁰ pixels of PNG": claimed_png(2**30, 2**30),
    "no pixels": claimed_png(0, 0),
    "thousands of scans": scanned(5000),
    "a comment of a PPM that does not end": b"P6 #" + b"x" * 50_000_000,
    "a PPM of many digits": b"P6 " + b"9" * 5000 + b" 1 255\n",
    "a PPM of 10⁹ × 10⁹": b"P6 1000000000 1000000000 255\n",
    "a truncated JPEG": jpeg()[:200],
    "a truncated PNG": png()[:100],
    "a GIF of one byte": b"GIF89a\x01",
    "a TIFF that points to itself": b"II*\0\x08\0\0\0\x01\0\x00\x01\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "text": b"\x1b[2J",
    "nothing": b"",
}


@pytest.mark.parametrize("what", IMAGES)
def test_an_image_that_is_refused(what):
    with bounded(), pytest.raises(ImageError, match=r"^x\.png: "):
        open_image(Item("x.png", IMAGES[what]))
    with bounded(), pytest.raises(DecodeError):
        inspect_image(IMAGES[what])


@pytest.mark.parametrize("edge", [16, 65_000])
def test_a_jpeg_of_another_size_than_its_set_records(edge):
    """Whatever the set says of it: no memory is taken for what the image itself claims."""
    with bounded(), pytest.raises(DecodeError, match="65000×65000 pixels"):
        decode(StoredImage(claimed_jpeg(65_000, 65_000), ImageKind.JPEG, edge, edge))


def test_a_black_and_white_bomb():
    with bounded(), pytest.raises(ImageError):
        open_image(Item("x.png", bomb("PNG")))


def test_the_limit_on_pixels_can_be_raised_and_its_message_says_how(monkeypatch):
    """Above Pillow's own limit, too; that nothing is there to be decoded comes next."""
    content = claimed_png(15_000, 15_000)
    for read in (lambda: open_image(Item("x.png", content)), lambda: inspect_image(content)):
        monkeypatch.delenv(RAISED, raising=False)
        with (
            bounded(),
            pytest.raises(ValueError, match=r"more than 100,000,000, which (\w+=\d+) allows") as error,
        ):
            read()
        name, _, value = re.search(r"which (\S+) allows", str(error.value))[1].partition("=")
        monkeypatch.setenv(name, value)
        with pytest.raises(ValueError, match=r"damaged|cannot be decoded"):
            read()


def test_a_name_of_5000_characters(tmp_path):
    with bounded(), pytest.raises(ImageError, match="File name too long"):
        open_image(Item("x", tmp_path / ("x" * 5000)))
