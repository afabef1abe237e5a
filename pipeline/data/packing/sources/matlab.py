"""Variables of MATLAB files, in which Oxford's labels and ImageNet's development kit are published."""

import io
import math
import struct
import zlib
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from pipeline.errors import WorkFailed

MOST_BYTES = 1 << 24  # unpacked; the published files take less than a tenth
MOST_ITEMS = 1_000_000
HEADER, ELEMENT = 128, 8  # bytes
COMPRESSED = 15  # the type of an element that zlib packed


def variable(content: bytes, name: str, where: str) -> np.ndarray:
    """One variable, without axes of length 1.

    A process of its own reads it: on some damaged files scipy's reader, which is in C, ends its process.
    """
    try:
        with ProcessPoolExecutor(1, get_context("fork")) as alone:
            return alone.submit(_variable, content, name).result()
    except BrokenExecutor:
        raise WorkFailed(f"{where} is damaged: its reader broke down") from None
    except Exception as error:  # the parser may raise anything on a damaged file
        raise WorkFailed(f"{where} cannot be read: {error}") from None


def _variable(content: bytes, name: str) -> np.ndarray:
    """Its size is known before it is unpacked."""
    from scipy.io import loadmat, whosmat

    if _unpacked(content) > MOST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
    shapes = {found: shape for found, shape, _ in whosmat(io.BytesIO(content))}
    if name not in shapes:
        raise ValueError(f"it has no field {name!r}")
    if math.prod(shapes[name]) > MOST_ITEMS:
        raise ValueError(f"its {name} claims {math.prod(shapes[name]):,} values")
    found: dict[str, Any] = loadmat(io.BytesIO(content), squeeze_me=True, variable_names=[name])
    return np.atleast_1d(found[name])


def vector(content: bytes, name: str, where: str) -> np.ndarray:
    """A variable of whole numbers from 1 on, as MATLAB counts."""
    values = variable(content, name, where).reshape(-1)
    if values.dtype.kind not in "iuf" or not len(values):
        raise WorkFailed(f"{where}: {name} holds no numbers")
    wrong = values[~((values >= 1) & (values <= MOST_ITEMS) & (values == np.floor(values)))]
    if len(wrong):
        raise WorkFailed(f"{where}: {name} holds {wrong[0]}, no whole number from 1 to {MOST_ITEMS:,}")
    return values.astype(np.int64)


def _unpacked(content: bytes) -> int:
    order = ">" if content[HEADER - 2 : HEADER] == b"MI" else "<"
    at, total = HEADER, 0
    while at + ELEMENT <= len(content) and total <= MOST_BYTES:
        kind, size = struct.unpack_from(f"{order}II", content, at)
        at += ELEMENT
        if kind == COMPRESSED:
            total += len(zlib.decompressobj().decompress(content[at : at + size], MOST_BYTES + 1))
        at += size
    return total
