"""What an image may cost, known from its header before it is decoded."""

import re

MOST_BYTES = 1 << 28  # of a file
MOST_PIXELS = 100_000_000  # ImageNet's largest image has 57 million
MOST_SCANS = 1000  # of a progressive JPEG; encoders write about ten
MOST_WORK = 20 * MOST_PIXELS  # pixels times scans: each scan goes over all pixels
LONGEST_COMMENT = 1 << 12  # of a PPM, which Pillow reads byte by byte
HEADER = 1 << 16


def excess(payload: bytes, width: int, height: int) -> str:
    """Why an image is not decoded; empty where it may be."""
    if width * height > MOST_PIXELS:
        return f"{width}×{height} pixels are more than {MOST_PIXELS:,}"
    # The two bytes stand for nothing else in a JPEG: its data have no 255 that a 0 does not follow.
    scans = payload.count(b"\xff\xda") if payload.startswith(b"\xff\xd8") else 1
    if scans > MOST_SCANS or scans * width * height > MOST_WORK:
        return f"{scans:,} scans of {width}×{height} pixels; an encoder writes about ten"
    return ""


def endless(payload: bytes) -> bool:
    """Whether a PPM's header is a comment that does not end."""
    comment = re.search(rb"#[^\r\n]*", payload[:HEADER]) if payload[:1] == b"P" else None
    return comment is not None and len(comment[0]) > LONGEST_COMMENT
