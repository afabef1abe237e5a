import numpy as np
import pytest

from pipeline.data.images.inspection import DamagedImage, inspect_image
from pipeline.data.shards.manifest import ImageKind
from tests.pipeline.pictures import encoded, jpeg, picture, png, turned, with_stray_bytes


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (jpeg(), ImageKind.JPEG),
        (jpeg(progressive=True), ImageKind.PROGRESSIVE),
        (jpeg(mode="L"), ImageKind.GREY),
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


def test_exif_rotation_is_noted_and_not_applied():
    inspection = inspect_image(turned(jpeg()))
    assert inspection.turned
    assert (inspection.width, inspection.height) == (60, 40)


def test_a_file_that_decoders_warn_of_is_kept_and_marked_for_pillow():
    inspection = inspect_image(with_stray_bytes(jpeg()))
    assert inspection.kind == ImageKind.OTHER
    assert "extraneous bytes" in inspection.flaw


@pytest.mark.parametrize("payload", [jpeg(200, 150), jpeg(200, 150, progressive=True), png(200, 150)])
def test_truncated_images_are_damaged(payload):
    for share in (0.001, 0.1, 0.5, 0.9, 0.97):
        with pytest.raises(DamagedImage):
            inspect_image(payload[: int(len(payload) * share)])


@pytest.mark.parametrize("payload", [b"", b"hello", bytes(1000), b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xff\xd8"])
def test_what_is_no_image_is_damaged_with_a_reason(payload):
    with pytest.raises(DamagedImage, match=r"\w"):
        inspect_image(payload)


def test_an_image_of_absurd_size_is_refused_before_it_is_decoded():
    payload = bytearray(jpeg())
    at = payload.index(b"\xff\xc0")
    payload[at + 5 : at + 9] = b"\xff\x00\xff\x00"
    with pytest.raises(DamagedImage, match="65280×65280 pixels"):
        inspect_image(bytes(payload))


def test_random_damage_gives_an_inspection_or_a_reason():
    generator = np.random.default_rng(0)
    for sound in (jpeg(), png(), jpeg(mode="CMYK"), encoded(picture(60, 40), "GIF")):
        for _ in range(150):
            damaged = bytearray(sound)
            for place in generator.integers(len(sound), size=3):
                damaged[place] = generator.integers(256)
            try:
                outcome = inspect_image(bytes(damaged)).width
            except DamagedImage as error:
                outcome = str(error)
            assert outcome
