"""What an image may cost, known from its header before it is decoded."""

import os
import re

from tnt.untrusted.reading import whole_number

MOST_BYTES = 1 << 28  # of a file
MOST_PIXELS = 100_000_000  # ImageNet's largest image has 57 million
RAISED = "TNT_MOST_PIXELS"  # in the environment: reaches every command and all processes of a run
MOST_SCANS = 1000  # of a progressive JPEG; encoders write about ten
MOST_WORK = 20  # scans of the most pixels: each scan goes over all pixels
LONGEST_COMMENT = 1 << 12  # of a PPM, which Pillow reads byte by byte
HEADER = 1 << 16


def excess(payload: bytes, width: int, height: int) -> str:
    """Why an image is not decoded; empty where it may be."""
    said = os.environ.get(RAISED, "")
    most = whole_number(said, 1, 1 << 62, RAISED) if said else MOST_PIXELS
    if width * height > most:
        return f"{width}×{height} pixels are more than {most:,}, which {RAISED}={width * height} allows"
    # The two bytes stand for nothing else in a JPEG: its data have no 255 that a 0 does not follow.
    scans = payload.count(b"\xff\xda") if payload.startswith(b"\xff\xd8") else 1
    if scans > MOST_SCANS or scans * width * height > MOST_WORK * most:
        return f"{scans:,} scans of {width}×{height} pixels; an encoder writes about ten"
    return ""


def endless(payload: bytes) -> bool:
    """Whether a PPM's header is a comment that does not end."""
    comment = re.search(rb"#[^\r\n]*", payload[:HEADER]) if payload[:1] == b"P" else None
    return comment is not None and len(comment[0]) > LONGEST_COMMENT
