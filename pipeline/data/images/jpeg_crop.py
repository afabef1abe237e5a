"""The part of a JPEG that a crop needs, as a smaller JPEG file of its own.

Huffman decoding is most of a decoder's work, and it can begin behind any restart marker. Where markers cut
every row of MCUs into the same segments (what `shards.py repack` writes), the segments that cover a crop make
a file: the headers with another height and width, the segments' bytes, their markers renumbered, and an end
marker. Its pixels equal those of the whole image, because it reaches one segment further wherever the
upsampling of chroma looks across its edge.
"""

from typing import NamedTuple

import numpy as np

SEQUENTIAL = (0xC0, 0xC1)  # frame headers (SOF0, SOF1) of files that can have bands
DRI = 0xDD
EOI = b"\xff\xd9"


Box = tuple[int, int, int, int]  # rows top … bottom - 1, columns left … right - 1: (top, left, bottom, right)


class Window(NamedTuple):
    """A JPEG file and the place of its pixels in the image that it was cut from."""

    payload: bytes | bytearray | memoryview
    top: int
    left: int
    height: int
    width: int


def window(payload: bytes | memoryview, rows: np.ndarray, size: tuple[int, int], box: Box) -> Window:
    """A file that holds a box of the pixels of an image of `size` (height, width).

    ValueError where the payload is not what the row offsets were taken from.
    """
    frame, interval = _headers(payload, int(rows[0]))
    height, width = size
    if payload[frame + 5 : frame + 9] != height.to_bytes(2, "big") + width.to_bytes(2, "big"):
        raise ValueError(f"its header does not say {width}×{height}")
    across, down = _sampling(payload, frame)
    tall, wide = 8 * down, 8 * across * interval  # a segment's pixels
    per_row = -(-width // wide)
    if len(rows) != -(-height // tall) or -(-width // (8 * across)) != per_row * interval:
        raise ValueError(
            f"{len(rows)} rows of MCUs in segments of {wide}×{tall} do not make {width}×{height}"
        )
    top, left, bottom, right = box
    first, last = _reach(top, bottom, tall, down > 1, len(rows))
    begin, end = _reach(left, right, wide, across > 1, per_row)
    if (first, last, begin, end) == (0, len(rows), 0, per_row):
        return Window(payload, 0, 0, height, width)
    start = int(rows[first])
    stop = int(rows[last]) - 2 if last < len(rows) else len(payload) - len(EOI)
    head = bytearray(payload[: rows[0]])
    kept = min(height, last * tall) - first * tall, min(width, end * wide) - begin * wide
    head[frame + 5 : frame + 9] = kept[0].to_bytes(2, "big") + kept[1].to_bytes(2, "big")
    pieces = _segments(memoryview(payload)[start:stop], last - first, per_row, begin, end)
    return Window(b"".join((head, pieces, EOI)), first * tall, begin * wide, *kept)


def _reach(low: int, high: int, size: int, interpolated: bool, count: int) -> tuple[int, int]:
    """The segments that cover pixels low … high - 1, and the pixels beside them if chroma is interpolated."""
    margin = 1 if interpolated else 0
    return max(0, (low - margin) // size), min(count, (high - 1 + margin) // size + 1)


def _segments(data: memoryview, rows: int, per_row: int, begin: int, end: int) -> bytearray:
    """Segments begin … end - 1 of every row of `data`, their markers numbered from 0."""
    values = np.frombuffer(data, np.uint8)
    marks = np.flatnonzero(values[:-1] == 0xFF)
    marks = marks[values[marks + 1] & 0xF8 == 0xD0]
    if len(marks) != rows * per_row - 1:
        raise ValueError(f"{len(marks) + 1} segments where {rows} rows of {per_row} should be")
    starts = np.concatenate([[0], marks + 2]).reshape(rows, per_row)
    stops = np.concatenate([marks, [len(values)]]).reshape(rows, per_row)
    runs = zip(starts[:, begin].tolist(), stops[:, end - 1].tolist(), strict=True)
    kept = bytearray(b"\xff\xd0".join([data[start:stop] for start, stop in runs]))
    lengths = (stops - starts)[:, begin:end].ravel()[:-1]
    places = np.cumsum(lengths + 2) - 1
    np.frombuffer(kept, np.uint8)[places] = 0xD0 + np.arange(len(places)) % 8
    return kept


def _headers(payload: bytes | memoryview, scan: int) -> tuple[int, int]:
    """Offset of the frame header's marker, and the restart interval in MCUs."""
    at, frame, interval = 2, 0, 0
    while at + 10 < min(scan, len(payload)) and payload[at] == 0xFF:
        marker = payload[at + 1]
        if marker in SEQUENTIAL:
            frame = at
        elif marker == DRI:
            interval = payload[at + 4] << 8 | payload[at + 5]
        at += 1 if marker == 0xFF else 2 + (payload[at + 2] << 8 | payload[at + 3])
    if not frame or not interval:
        raise ValueError("no frame header or no restart interval where the file's headers are")
    return frame, interval


def _sampling(payload: bytes | memoryview, frame: int) -> tuple[int, int]:
    """The largest horizontal and vertical sampling factor: an MCU's edges in blocks of 8 pixels."""
    factors = payload[frame + 11 : frame + 10 + 3 * payload[frame + 9] : 3]
    if len(factors) == 1:
        return 1, 1
    return max(factor >> 4 for factor in factors), max(factor & 15 for factor in factors)
