"""The structure of a JPEG file (ITU-T T.81), read without decoding it.

Enough to choose a decoder path, to know the size before decoding, and to find where each row of MCUs begins
in files with restart markers: such a row can be decoded without those above it.
"""

import struct
from dataclasses import dataclass

import numpy as np

from pipeline.data.shards.manifest import ImageKind

SOI, EOI, SOS, DRI, APP1 = 0xD8, 0xD9, 0xDA, 0xDD, 0xE1
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0…SOF15 without DHT, JPG and DAC
SEQUENTIAL = {0xC0, 0xC1}  # Huffman-coded
PROGRESSIVE = {0xC2}


class NotJpeg(ValueError):
    """The bytes are not the beginning of a JPEG file; the message says why."""


@dataclass(frozen=True)
class Frame:
    """What the headers up to the first scan say."""

    width: int
    height: int
    process: int  # the SOF marker: 0xC0 baseline, 0xC2 progressive, …
    precision: int
    sampling: tuple[tuple[int, int], ...]  # horizontal and vertical factor of each component
    restart_interval: int  # in MCUs; 0 without restart markers
    orientation: int  # EXIF's, 1 to 8; 1 where there is none
    scan_components: int
    scan: int  # offset of the first scan's entropy-coded data

    @property
    def kind(self) -> ImageKind:
        components = len(self.sampling)
        if components == 4:
            return ImageKind.CMYK
        if self.precision != 8 or self.process not in SEQUENTIAL | PROGRESSIVE or components not in (1, 3):
            return ImageKind.OTHER
        if components == 1:
            return ImageKind.GREY
        return ImageKind.PROGRESSIVE if self.process in PROGRESSIVE else ImageKind.JPEG

    @property
    def mcu_size(self) -> tuple[int, int]:
        """Width and height in pixels of an MCU of a scan that holds every component."""
        if len(self.sampling) == 1:
            return 8, 8
        return 8 * max(h for h, _ in self.sampling), 8 * max(v for _, v in self.sampling)


def read_frame(payload: bytes) -> Frame:
    if payload[:2] != bytes((0xFF, SOI)):
        raise NotJpeg("it does not begin as a JPEG file")
    frame: tuple[int, int, int, int, tuple[tuple[int, int], ...]] | None = None
    restart, orientation, position = 0, 1, 2
    while True:
        marker, body, following = _segment(payload, position)
        if marker in FRAMES:
            if frame is not None:
                raise NotJpeg("it has two frame headers")
            frame = _frame_header(marker, body)
        elif marker == DRI and len(body) == 2:
            restart = struct.unpack(">H", body)[0]
        elif marker == APP1 and body[:6] == b"Exif\0\0":
            orientation = _orientation(body[6:])
        elif marker == SOS:
            if frame is None or not body:
                raise NotJpeg("its scan comes before its frame header")
            process, precision, height, width, sampling = frame
            return Frame(
                width, height, process, precision, sampling, restart, orientation, body[0], following
            )
        position = following


def _segment(payload: bytes, position: int) -> tuple[int, bytes, int]:
    """Marker, body and end of the segment at a position; 0xFF may be repeated before a marker."""
    start = position
    while payload[position : position + 2] == b"\xff\xff":
        position += 1
    head = payload[position : position + 4]
    if len(head) < 4:
        raise NotJpeg("it ends within its headers")
    if head[0] != 0xFF or head[1] in (0, EOI, SOI):
        raise NotJpeg(f"no marker at byte {start}")
    length = struct.unpack(">H", head[2:])[0]
    end = position + 2 + length
    if length < 2 or end > len(payload):
        raise NotJpeg(f"the segment at byte {start} runs past the end")
    return head[1], payload[position + 4 : end], end


def _frame_header(marker: int, body: bytes) -> tuple[int, int, int, int, tuple[tuple[int, int], ...]]:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise NotJpeg("its frame header is cut off")
    precision, height, width, components = struct.unpack(">BHHB", body[:6])
    sampling = tuple((body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15) for i in range(components))
    if not (width and height and components) or any(not h or not v for h, v in sampling):
        raise NotJpeg(f"its frame is {width}×{height} with {components} components")
    return marker, precision, height, width, sampling


def _orientation(tiff: bytes) -> int:
    """EXIF tag 0x0112; many files carry broken EXIF, which says nothing about the pixels."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack(order + "I", tiff[4:8])
    if len(tiff) < start + 2:
        return 1
    (entries,) = struct.unpack(order + "H", tiff[start : start + 2])
    for at in range(start + 2, min(start + 2 + 12 * entries, len(tiff) - 11), 12):
        tag, kind, _, value = struct.unpack(order + "HHIH", tiff[at : at + 10])
        if tag == 0x0112 and kind == 3 and 1 <= value <= 8:
            return value
    return 1


SEGMENT = 64  # pixels across that a restart segment should have: finer costs bytes, coarser saves less


def restart_interval(frame: Frame) -> int:
    """The interval in MCUs that cuts every row of MCUs into equal segments of about SEGMENT pixels."""
    across = -(-frame.width // frame.mcu_size[0])
    divisors = [count for count in range(1, across + 1) if across % count == 0]
    return min(divisors, key=lambda count: (abs(count - SEGMENT / frame.mcu_size[0]), count))


def restart_rows(payload: bytes) -> np.ndarray:
    """Offset of each MCU row's entropy-coded data, where every row begins after a restart marker.

    Further markers within the rows may cut them into equal segments. Empty for everything else: progressive
    files, several scans, segments that straddle rows, or rows that are not all there. A row ends two bytes
    before the next one (its marker) or at the marker after the last row.
    """
    none = np.zeros(0, np.uint32)
    frame = read_frame(payload)
    width, height = frame.mcu_size
    if (
        frame.kind != ImageKind.JPEG
        or frame.scan_components != len(frame.sampling)
        or not frame.restart_interval
        or -(-frame.width // width) % frame.restart_interval
    ):
        return none
    per_row = -(-frame.width // width) // frame.restart_interval
    data = np.frombuffer(payload, np.uint8)
    at = frame.scan + np.flatnonzero(data[frame.scan : -1] == 0xFF)
    code = data[at + 1]
    marker = (code != 0) & (code != 0xFF)
    at, code = at[marker], code[marker]
    restarts = (code >= 0xD0) & (code <= 0xD7)
    count = -(-frame.height // height) * per_row - 1
    expected = 0xD0 + np.arange(count) % 8
    if len(at) <= count or not np.array_equal(code[:count], expected) or restarts[count]:
        return none
    return np.concatenate([[frame.scan], at[:count] + 2])[::per_row].astype(np.uint32)
