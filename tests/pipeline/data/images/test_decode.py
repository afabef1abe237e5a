import dataclasses

import numpy as np
import pytest
from PIL import Image

from pipeline.data.images.decode import DecodeError, ImageKind, decode, decode_with_pillow, inspect_image
from tests.pipeline.photographs import photograph, stored_file
from tests.pipeline.pictures import encoded, jpeg, picture, png, turned, with_stray_bytes

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
    rotated = decode(stored_file(PHOTO, exif=exif))
    assert np.array_equal(rotated, decode(stored_file(PHOTO)))


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


# Inspection before packing.


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (jpeg(), ImageKind.JPEG),
        (jpeg(subsampling=0), ImageKind.JPEG),
        (jpeg(progressive=True), ImageKind.PROGRESSIVE),
        (jpeg(mode="L"), ImageKind.GREY),
        (jpeg(mode="L", progressive=True), ImageKind.GREY),
        (jpeg(mode="CMYK"), ImageKind.CMYK),
        (png(), ImageKind.PNG),
        (png(mode="P"), ImageKind.PNG),
        (png(mode="LA"), ImageKind.PNG),
        (encoded(picture(60, 40), "GIF"), ImageKind.OTHER),
        (encoded(picture(60, 40), "BMP"), ImageKind.OTHER),
    ],
)
def test_every_readable_form_is_recognised_by_its_bytes(payload, kind):
    inspection = inspect_image(payload)
    assert (inspection.kind, inspection.width, inspection.height) == (kind, 60, 40)
    assert inspection.flaw == ""
    assert not inspection.turned


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1)])
def test_edges_of_one_pixel_are_read(size):
    for payload in (jpeg(*size), png(*size), jpeg(*size, progressive=True)):
        inspection = inspect_image(payload)
        assert (inspection.width, inspection.height) == size


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_rotation_is_noted_and_not_applied(order):
    inspection = inspect_image(turned(jpeg(), 8, order))
    assert inspection.turned
    assert (inspection.kind, inspection.width, inspection.height) == (ImageKind.JPEG, 60, 40)
    assert not inspect_image(turned(jpeg(), 1, order)).turned


def test_broken_exif_says_nothing_and_breaks_nothing():
    sound = turned(jpeg(), 6)
    start = sound.index(b"Exif")
    generator = np.random.default_rng(0)
    for place in range(start, start + 32):
        damaged = bytearray(sound)
        damaged[place] = generator.integers(256)
        assert inspect_image(bytes(damaged)).kind == ImageKind.JPEG


def test_a_file_that_decoders_warn_of_is_kept_and_marked_for_pillow():
    inspection = inspect_image(with_stray_bytes(jpeg()))
    assert inspection.kind == ImageKind.OTHER
    assert "extraneous bytes" in inspection.flaw


@pytest.mark.parametrize("payload", [jpeg(200, 150), jpeg(200, 150, progressive=True), png(200, 150)])
def test_truncated_images_are_damaged(payload):
    for share in (0.001, 0.1, 0.5, 0.9, 0.97):
        with pytest.raises(DecodeError):
            inspect_image(payload[: int(len(payload) * share)])


@pytest.mark.parametrize("payload", [b"", b"hello", bytes(1000), b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xff\xd8"])
def test_what_is_no_image_is_damaged_with_a_reason(payload):
    with pytest.raises(DecodeError, match=r"\w"):
        inspect_image(payload)


@pytest.mark.parametrize("edge", [10240, 65280])
def test_an_image_of_absurd_size_is_refused_before_it_is_decoded(edge):
    payload = bytearray(jpeg())
    at = payload.index(b"\xff\xc0")
    payload[at + 5 : at + 9] = 2 * edge.to_bytes(2, "big")
    with pytest.raises(DecodeError, match=f"{edge}×{edge} pixels"):
        inspect_image(bytes(payload))


def test_random_damage_gives_an_inspection_or_a_reason():
    generator = np.random.default_rng(0)
    for sound in (jpeg(), turned(jpeg()), png(), jpeg(mode="CMYK"), encoded(picture(60, 40), "GIF")):
        for _ in range(150):
            damaged = bytearray(sound)
            for place in generator.integers(len(sound), size=3):
                damaged[place] = generator.integers(256)
            try:
                outcome = inspect_image(bytes(damaged)).width
            except DecodeError as error:
                outcome = str(error)
            assert outcome
