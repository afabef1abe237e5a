"""What a network answered for each image of a split.

`results/answers/<id>.npz` holds an array for each network that was measured, raw and ema, with a row for each
image in the order of the split's manifest. A record holds the hash of that file and, as a short text, for
which images the reported network was right: two networks are compared on the same images.
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import publish_bytes
from tnt.untrusted.reading import arrays_of, read_bytes

TOP = 5
NOT_COUNTED = 255  # as `place`: the image has no right answer


def row_type(classes: int) -> np.dtype:
    """One image's answer by a network of so many classes."""
    assert classes <= 1 << 16, f"{classes} classes do not fit into 16 bits"
    top = min(TOP, classes)
    return np.dtype(
        [
            ("classes", "<u2", (top,)),  # the likeliest first
            ("probabilities", "<f2", (top,)),
            ("label_probability", "<f2"),  # of the right class; of several, the likeliest
            ("place", "u1"),  # of the first right class among those above; their number where none is
        ]
    )


MOST_BYTES, MOST_TIMES = 1 << 30, 1100  # of a file; zlib packs a thousandfold at most


def path_of(records: Path | str, id: str) -> Path:
    """Beside the folder of the records."""
    return Path(records).parent / "answers" / f"{id}.npz"


def publish(answers: Mapping[str, np.ndarray], path: Path) -> None:
    """The same answers give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **answers)
    publish_bytes(path, buffer.getbuffer())


def read(path: Path) -> dict[str, np.ndarray]:
    try:
        return arrays_of(read_bytes(path, MOST_BYTES), str(path), MOST_TIMES)
    except FileNotFoundError:
        raise UserError(f"there are no answers at {path}") from None


def right(answers: np.ndarray) -> np.ndarray:
    """bool [images that count]: whether the first answer was right."""
    place = answers["place"]
    return place[place != NOT_COUNTED] == 0


def as_text(right: np.ndarray) -> str:
    """A bit an image, in base64."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def from_text(text: str, images: int) -> np.ndarray:
    """bool [images]."""
    bits = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(bits) != -(-images // 8):
        raise ValueError(f"{8 * len(bits)} bits are not those of {images} images")
    return np.unpackbits(bits, count=images).astype(bool)
