import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from pipeline.data.images.decode import DecodeError, decode, decode_box, decode_with_pillow
from pipeline.data.images.jpeg_crop import window
from pipeline.data.shards.manifest import ImageKind
from tests.pipeline.photographs import NO_ROWS, photograph, stored, stored_file, with_restart_rows

needs_jpegtran = pytest.mark.skipif(not shutil.which("jpegtran"), reason="jpegtran is not installed")

PHOTO = photograph("flower.jpg", 101, 67)
FORMS = {
    "baseline 4:2:0": (stored_file(PHOTO, subsampling=2), PHOTO),
    "baseline 4:4:4": (stored_file(PHOTO, subsampling=0), PHOTO),
    "progressive": (stored_file(PHOTO, kind=ImageKind.PROGRESSIVE, progressive=True), PHOTO),
    "grey": (stored_file(PHOTO.convert("L"), kind=ImageKind.GREY), PHOTO.convert("L")),
    "cmyk": (stored_file(PHOTO.convert("CMYK"), kind=ImageKind.CMYK), PHOTO),
    "png": (stored_file(PHOTO, "PNG", ImageKind.PNG), PHOTO),
    "png palette": (stored_file(PHOTO.quantize(64), "PNG", ImageKind.PNG), PHOTO),
    "gif": (stored_file(PHOTO, "GIF", ImageKind.OTHER), PHOTO),
    "one pixel": (stored_file(PHOTO.resize((1, 1))), PHOTO.resize((1, 1))),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_decodes_to_what_pillow_decodes(form):
    image, source = FORMS[form]
    pixels = decode(image)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (source.height, source.width, 3)
    assert np.array_equal(pixels, decode_with_pillow(image))
    assert np.abs(pixels.astype(int) - np.asarray(source.convert("RGB"))).mean() < 12


def test_exif_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode(stored_file(PHOTO, exif=exif))
    assert np.array_equal(turned, decode(stored_file(PHOTO)))


def test_a_payload_may_be_a_view_of_a_larger_buffer():
    image = stored_file(PHOTO)
    within = memoryview(b"before" + image.payload + b"after")[6:-5]
    assert np.array_equal(decode(dataclasses.replace(image, payload=within)), decode(image))


@pytest.mark.parametrize("form", ["baseline 4:2:0", "cmyk", "png"])
@pytest.mark.parametrize("damage", [lambda p: p[: len(p) // 2], lambda p: b"\0" * 64 + p[64:], lambda p: b""])
def test_a_damaged_image_is_a_decode_error(form, damage):
    image = FORMS[form][0]
    with pytest.raises(DecodeError):
        decode(dataclasses.replace(image, payload=damage(image.payload)))


def test_an_image_of_another_size_than_recorded_is_refused_with_both_sizes():
    image = dataclasses.replace(stored_file(PHOTO), height=68)
    with pytest.raises(DecodeError, match="101×67 pixels where 101×68 are recorded"):
        decode(image)


# Windows of files with restart markers.


@needs_jpegtran
@pytest.mark.parametrize("subsampling", [0, 1, 2], ids=["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize(("width", "height"), [(101, 163), (33, 16), (17, 17), (64, 7), (190, 128)])
@pytest.mark.parametrize("interval", [None, 1], ids=["as repacked", "every MCU"])
def test_a_box_holds_the_pixels_of_the_whole_image(width, height, subsampling, interval):
    plain = stored_file(photograph("china.jpg", width, height), subsampling=subsampling)
    image = with_restart_rows(plain, interval)
    assert len(image.rows)
    whole, draw = decode(plain), np.random.default_rng(0)
    for _ in range(60):
        top, left = int(draw.integers(0, height)), int(draw.integers(0, width))
        bottom, right = int(draw.integers(top + 1, height + 1)), int(draw.integers(left + 1, width + 1))
        pixels, y, x = decode_box(image, (top, left, bottom, right))
        assert np.array_equal(
            pixels[top - y : bottom - y, left - x : right - x], whole[top:bottom, left:right]
        )


@needs_jpegtran
def test_a_box_of_a_grey_image_holds_its_pixels():
    """Written by hand: the manifest keeps no rows of grey images, but the bands would serve them."""
    grey = stored_file(photograph("china.jpg", 50, 90).convert("L"), kind=ImageKind.GREY)
    payload = with_restart_rows(grey, 7).payload
    marks = [
        at + 2 for at in range(len(payload) - 1) if payload[at] == 0xFF and 0xD0 <= payload[at + 1] <= 0xD7
    ]
    scan = payload.index(b"\xff\xda")
    rows = np.array([scan + 2 + payload[scan + 3], *marks], np.uint32)
    image = dataclasses.replace(grey, payload=payload, rows=rows)
    pixels, top, _ = decode_box(image, (30, 0, 50, 50))
    assert len(pixels) < 40
    assert np.array_equal(pixels[30 - top : 50 - top], decode(grey)[30:50])


@needs_jpegtran
def test_only_the_segments_of_the_crop_are_decoded():
    image = with_restart_rows(stored("china.jpg", 320, 320, subsampling=2))  # segments of 64 × 16 pixels
    pixels, top, left = decode_box(image, (100, 70, 150, 120))
    assert (top, left, pixels.shape) == (96, 64, (64, 64, 3))
    # Row 96 and column 64 are the first of their MCUs: their chroma is interpolated with the MCUs before.
    assert decode_box(image, (96, 64, 112, 120))[0].shape == (48, 128, 3)
    payload = window(image.payload, image.rows, (320, 320), (100, 70, 150, 120)).payload
    assert len(payload) < 0.15 * len(image.payload)


@needs_jpegtran
def test_a_box_of_everything_is_the_payload_itself():
    image = with_restart_rows(stored("china.jpg", 100, 80))
    part = window(image.payload, image.rows, (80, 100), (0, 0, 80, 100))
    assert part == (image.payload, 0, 0, 80, 100)


@needs_jpegtran
@pytest.mark.parametrize(
    "wrong",
    [
        lambda image: {"rows": image.rows[:-1]},
        lambda image: {"rows": image.rows + np.uint32(3)},
        lambda image: {"height": image.height + 1},
        lambda image: {"width": image.width - 1},
        lambda image: {"payload": image.payload[:2] + bytes(2) + image.payload[4:]},
        lambda image: {"payload": b"nonsense"},
    ],
)
def test_rows_of_another_file_are_a_decode_error(wrong):
    image = with_restart_rows(stored("china.jpg", 100, 80))
    with pytest.raises(DecodeError):
        decode_box(dataclasses.replace(image, **wrong(image)), (20, 10, 30, 40))


def test_without_bands_the_whole_image_is_decoded():
    image = stored("china.jpg", 100, 80)
    assert image.rows is NO_ROWS
    pixels, top, left = decode_box(image, (20, 10, 30, 40))
    assert (top, left, pixels.shape) == (0, 0, (80, 100, 3))
