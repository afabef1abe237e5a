import numpy as np
import pytest

from pipeline.data.images.jpeg import ImageKind, NotJpeg, read_frame
from tests.pipeline.pictures import jpeg, png, turned


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (jpeg(), ImageKind.JPEG),
        (jpeg(subsampling=0), ImageKind.JPEG),
        (jpeg(progressive=True), ImageKind.PROGRESSIVE),
        (jpeg(mode="L"), ImageKind.GREY),
        (jpeg(mode="L", progressive=True), ImageKind.GREY),
        (jpeg(mode="CMYK"), ImageKind.CMYK),
        (turned(jpeg()), ImageKind.JPEG),
    ],
)
def test_the_headers_tell_size_and_kind(payload, kind):
    frame = read_frame(payload)
    assert (frame.width, frame.height, frame.kind) == (60, 40, kind)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_is_read_in_both_byte_orders(order):
    assert read_frame(jpeg()).orientation == 1
    assert read_frame(turned(jpeg(), 8, order)).orientation == 8


def test_broken_exif_says_nothing_and_breaks_nothing():
    sound = turned(jpeg(), 6)
    start = sound.index(b"Exif")
    generator = np.random.default_rng(0)
    for place in range(start, start + 32):
        damaged = bytearray(sound)
        damaged[place] = generator.integers(256)
        assert read_frame(bytes(damaged)).kind == ImageKind.JPEG


def test_what_is_no_jpeg_is_told_apart():
    cases = {
        b"": "does not begin",
        png(): "does not begin",
        jpeg()[:2]: "ends within",
        jpeg()[:100]: "runs past|ends within",
        b"\xff\xd8\xff\xd9" + bytes(10): "no marker",
        b"\xff\xd8ab" + bytes(10): "no marker at byte 2",
    }
    for payload, message in cases.items():
        with pytest.raises(NotJpeg, match=message):
            read_frame(payload)
    flat = bytearray(jpeg())
    at = flat.index(b"\xff\xc0")
    flat[at + 5 : at + 7] = b"\0\0"
    with pytest.raises(NotJpeg, match="60×0"):
        read_frame(bytes(flat))


def test_any_damage_in_the_headers_gives_a_frame_or_a_reason():
    generator = np.random.default_rng(3)
    sound = turned(jpeg())
    for _ in range(1000):
        damaged = bytearray(sound)
        damaged[generator.integers(700)] = generator.integers(256)
        try:
            outcome = read_frame(bytes(damaged)).process
        except NotJpeg as error:
            outcome = str(error)
        assert outcome
