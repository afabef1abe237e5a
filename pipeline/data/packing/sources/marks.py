"""Images whose class is the patch that holds a mark: a positive control for position encodings.

Without position encodings a network sees the same patches in every class and can only guess.
"""

import numpy as np

from pipeline.data.packing.sources.source import Source, encoded, listing
from pipeline.errors import UserError

SAMPLES = {"train": 2048, "validation": 400}


def marks(side: int = 2, patch: int = 8) -> Source:
    """side × side grey patches; one of them holds the mark, a checkerboard of random brightness."""
    if side < 2 or patch < 4:
        raise UserError(f"{side} patches of {patch} pixels a side: at least 2 of at least 4")
    from PIL import Image

    places = side * side
    splits = {}
    for split, samples in SAMPLES.items():
        keys = [f"mark-{i:04d}" for i in range(samples)]
        bound = 2048 + 3 * (side * patch) ** 2
        splits[split] = listing(keys, np.arange(samples) % places, np.full(samples, bound))

    def read(split: str, row: int) -> bytes:
        draw = np.random.Generator(np.random.Philox(key=[list(SAMPLES).index(split), row]))
        image = np.full((side * patch, side * patch), draw.integers(96, 160), np.uint8)
        y, x = (place * patch for place in divmod(row % places, side))
        checks = np.indices((patch, patch)).sum(0) // (patch // 4) % 2
        image[y : y + patch, x : x + patch] = checks * draw.integers(200, 256)
        return encoded(Image.fromarray(image).convert("RGB"), "JPEG")

    return Source(
        name="marks",
        classes=tuple(f"patch-{place}" for place in range(places)),
        splits=splits,
        read=read,
        identity={"side": side, "patch": patch},
    )
