"""Images whose class is the patch that holds a mark: a positive control for position encodings.

Without position encodings a network sees the same patches in every class and can only guess.
"""

import numpy as np

from pipeline.data.packing.sources.source import Source, encoded, listing

SAMPLES = {"train": 2048, "validation": 400}
SIDE, PATCH = 2, 8  # patches of an edge, pixels of a patch's


def marks() -> Source:
    """SIDE × SIDE grey patches; one of them holds the mark, a checkerboard of random brightness."""
    from PIL import Image

    places = SIDE * SIDE
    splits = {}
    for split, samples in SAMPLES.items():
        keys = [f"mark-{i:04d}" for i in range(samples)]
        bound = 2048 + 3 * (SIDE * PATCH) ** 2
        splits[split] = listing(keys, np.arange(samples) % places, np.full(samples, bound))

    def read(split: str, row: int) -> bytes:
        draw = np.random.Generator(np.random.Philox(key=[list(SAMPLES).index(split), row]))
        image = np.full((SIDE * PATCH, SIDE * PATCH), draw.integers(96, 160), np.uint8)
        y, x = (place * PATCH for place in divmod(row % places, SIDE))
        checks = np.indices((PATCH, PATCH)).sum(0) // (PATCH // 4) % 2
        image[y : y + PATCH, x : x + PATCH] = checks * draw.integers(200, 256)
        return encoded(Image.fromarray(image).convert("RGB"), "JPEG")

    return Source(
        name="marks",
        classes=tuple(f"patch-{place}" for place in range(places)),
        splits=splits,
        read=read,
        identity={"side": SIDE, "patch": PATCH},
    )
