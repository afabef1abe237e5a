import shutil
import subprocess

import numpy as np
import pytest

from pipeline.data.images.jpeg import NotJpeg, read_frame, restart_interval, restart_rows
from pipeline.data.shards.manifest import ImageKind
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


def test_sampling_gives_the_size_of_an_mcu():
    sizes = [read_frame(jpeg(subsampling=s)).mcu_size for s in (0, 1, 2)]
    assert sizes == [(8, 8), (16, 8), (16, 16)]
    assert read_frame(jpeg(mode="L")).mcu_size == (8, 8)


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
            outcome = read_frame(bytes(damaged)).scan
        except NotJpeg as error:
            outcome = str(error)
        assert outcome


def repacked(payload, *options):
    return subprocess.run(["jpegtran", *options], input=payload, capture_output=True, check=True).stdout


@pytest.mark.skipif(not shutil.which("jpegtran"), reason="jpegtran is not installed")
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("height", [1, 16, 17, 200])
def test_every_mcu_row_is_found_behind_its_restart_marker(subsampling, height):
    payload = repacked(jpeg(90, height, subsampling=subsampling), "-optimize", "-restart", "1")
    rows = restart_rows(payload)
    frame = read_frame(payload)
    assert len(rows) == -(-height // frame.mcu_size[1])
    assert rows[0] == frame.scan
    for index, row in enumerate(rows[1:]):
        assert payload[row - 2 : row] == bytes((0xFF, 0xD0 + index % 8))
    last = payload[rows[-1] :]
    assert last.endswith(b"\xff\xd9")
    assert not any(bytes((0xFF, code)) in last for code in range(0xD0, 0xD8))


@pytest.mark.skipif(not shutil.which("jpegtran"), reason="jpegtran is not installed")
@pytest.mark.parametrize("interval", [1, 2, 3])
def test_markers_within_a_row_leave_its_beginning_where_it_is(interval):
    payload = repacked(jpeg(90, 100), "-restart", f"{interval}B")  # six MCUs a row
    rows, marks = restart_rows(payload), [at for at in range(len(payload)) if payload[at : at + 1] == b"\xff"]
    restarts = [at + 2 for at in marks if 0xD0 <= payload[at + 1] <= 0xD7]
    assert rows[1:].tolist() == restarts[6 // interval - 1 :: 6 // interval]


@pytest.mark.parametrize(
    ("width", "interval"), [(500, 4), (375, 4), (400, 5), (333, 3), (16, 1), (176, 1), (368, 1)]
)
def test_segments_are_equal_and_about_64_pixels_wide(width, interval):
    frame = read_frame(jpeg(width, 20, subsampling=2))
    assert restart_interval(frame) == interval
    assert -(-width // 16) % interval == 0


@pytest.mark.skipif(not shutil.which("jpegtran"), reason="jpegtran is not installed")
def test_files_without_a_marker_per_row_have_no_rows():
    banded = repacked(jpeg(90, 100), "-optimize", "-restart", "1")
    second = restart_rows(banded)[2]
    renumbered = bytearray(banded)
    renumbered[second - 1] ^= 1
    lost = banded[: second - 2] + banded[second:]
    for payload in (
        jpeg(90, 100),
        jpeg(90, 100, mode="L"),
        repacked(jpeg(90, 100), "-restart", "2"),
        repacked(jpeg(90, 100), "-restart", "4B"),  # six MCUs a row
        repacked(jpeg(90, 100), "-progressive", "-restart", "1"),
        bytes(renumbered),
        lost,
        banded[: second - 2],
    ):
        assert restart_rows(payload).tolist() == []
