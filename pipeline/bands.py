"""The MCU rows of a JPEG that a crop needs, as a smaller JPEG file of their own.

Huffman decoding is most of a decoder's work. Where every row of MCUs begins after a restart marker (what
`shards.py repack` writes), decoding can begin at any row: a band is the file's headers with another height,
the rows' bytes, their markers renumbered, and an end marker. Its pixels equal those of the whole image,
because the band reaches one row further wherever the upsampling of chroma looks across its edge.
"""

import numpy as np

SEQUENTIAL = (0xC0, 0xC1)  # frame headers (SOF0, SOF1) of files that can have bands
EOI = b"\xff\xd9"


def band(
    payload: bytes | memoryview, rows: np.ndarray, height: int, top: int, bottom: int
) -> tuple[bytes | bytearray | memoryview, int, int]:
    """A file that holds pixel rows top … bottom - 1 of the image, its first pixel row, its height.

    ValueError where the payload is not what the row offsets were taken from.
    """
    frame = _frame_header(payload)
    factors = payload[frame + 11 : frame + 10 + 3 * payload[frame + 9] : 3]
    vertical = max(factor & 15 for factor in factors) if len(factors) > 1 else 1
    edge = 8 * vertical
    if len(rows) != -(-height // edge):
        raise ValueError(f"{len(rows)} MCU rows of {edge} pixels do not make {height}")
    context = vertical > 1
    first = max(0, (top - 1 if context else top) // edge)
    last = min(len(rows), ((bottom if context else bottom - 1) // edge) + 1)
    if first == 0 and last == len(rows):
        return payload, 0, height
    behind = rows[max(first, 1) : last + 1].astype(np.int64)
    data = np.frombuffer(payload, np.uint8)
    if (data[behind - 2] != 0xFF).any() or (data[behind - 1] & 0xF8 != 0xD0).any():
        raise ValueError("no restart markers where its rows should begin")
    start, head = int(rows[first]), int(rows[0])
    stop = int(rows[last]) - 2 if last < len(rows) else len(payload)
    piece = bytearray(payload[:head])
    piece += payload[start:stop]
    if last < len(rows):
        piece += EOI
    marks = rows[first + 1 : last].astype(np.int64) - (start - head) - 1
    np.frombuffer(piece, np.uint8)[marks] = 0xD0 + np.arange(len(marks)) % 8
    kept = min(height, last * edge) - first * edge
    piece[frame + 5 : frame + 7] = kept.to_bytes(2, "big")
    return piece, first * edge, kept


def _frame_header(payload: bytes | memoryview) -> int:
    """Offset of the frame header's marker."""
    at = 2
    while at + 10 < len(payload) and payload[at] == 0xFF:
        marker = payload[at + 1]
        if marker in SEQUENTIAL:
            return at
        at += 1 if marker == 0xFF else 2 + (payload[at + 2] << 8 | payload[at + 3])
    raise ValueError("no frame header where the file's headers are")
