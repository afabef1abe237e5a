"""The headers of a JPEG file (ITU-T T.81), read without decoding it: its size, and which decoder it needs."""

import struct
from dataclasses import dataclass, replace
from enum import IntEnum

SOI, EOI, SOS, APP1 = 0xD8, 0xD9, 0xDA, 0xE1
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0…SOF15 without DHT, JPG and DAC
SEQUENTIAL = {0xC0, 0xC1}  # Huffman-coded
PROGRESSIVE = {0xC2}


class ImageKind(IntEnum):
    """Which decoder a payload takes."""

    JPEG = 0  # three components, sequential Huffman, 8 bit
    PROGRESSIVE = 1
    CMYK = 2  # four components, CMYK or YCCK
    GREY = 3  # a JPEG of one component
    PNG = 4
    OTHER = 5  # any other form that Pillow decodes (arithmetic coding, 12 bit, GIF, BMP, …)


class NotJpeg(ValueError):
    """The bytes are not the beginning of a JPEG file; the message says why."""


@dataclass(frozen=True)
class Frame:
    """What the headers up to the first scan say."""

    width: int
    height: int
    process: int  # the SOF marker: 0xC0 baseline, 0xC2 progressive, …
    precision: int
    components: int
    orientation: int = 1  # EXIF's, 1 to 8; 1 where there is none

    @property
    def kind(self) -> ImageKind:
        if self.components == 4:
            return ImageKind.CMYK
        huffman = self.process in SEQUENTIAL | PROGRESSIVE
        if self.precision != 8 or not huffman or self.components not in (1, 3):
            return ImageKind.OTHER
        if self.components == 1:
            return ImageKind.GREY
        return ImageKind.PROGRESSIVE if self.process in PROGRESSIVE else ImageKind.JPEG


def read_frame(payload: bytes) -> Frame:
    if payload[:2] != bytes((0xFF, SOI)):
        raise NotJpeg("it does not begin as a JPEG file")
    frame: Frame | None = None
    orientation, position = 1, 2
    while True:
        marker, body, following = _segment(payload, position)
        if marker in FRAMES:
            if frame is not None:
                raise NotJpeg("it has two frame headers")
            frame = _frame_header(marker, body)
        elif marker == APP1 and body[:6] == b"Exif\0\0":
            orientation = _orientation(body[6:])
        elif marker == SOS:
            if frame is None or not body:
                raise NotJpeg("its scan comes before its frame header")
            return replace(frame, orientation=orientation)
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


def _frame_header(marker: int, body: bytes) -> Frame:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise NotJpeg("its frame header is cut off")
    precision, height, width, components = struct.unpack(">BHHB", body[:6])
    sampling = body[7 : 7 + 3 * components : 3]  # horizontal and vertical factor, four bits each
    if not (width and height and components) or any(not both >> 4 or not both & 15 for both in sampling):
        raise NotJpeg(f"its frame is {width}×{height} with {components} components")
    return Frame(width, height, marker, precision, components)


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
