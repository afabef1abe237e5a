"""scikit-learn's 1,797 handwritten digits, 8×8: real images without a download, for the demo and tests."""

import numpy as np

from pipeline.data.packing.sources.source import Source, encoded, listing
from pipeline.errors import UserError, unknown_name

FORMATS = {"jpg": "JPEG", "png": "PNG"}


def digits(size: int = 32, form: str = "jpg") -> Source:
    """The digits, enlarged to size×size and written as RGB; every fifth of each class is for validation."""
    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    if not 8 <= size <= 1024:
        raise UserError(f"size {size} is outside 8 to 1024")
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    by_class = np.argsort(data.target, kind="stable")
    validation = np.zeros(len(by_class), bool)
    validation[by_class[::5]] = True
    rows = {"train": np.flatnonzero(~validation), "validation": np.flatnonzero(validation)}
    bound = 3 * size * size + 2048

    splits = {}
    for split, chosen in rows.items():
        keys = [f"digit-{i:04d}" for i in chosen]
        splits[split] = listing(keys, data.target[chosen], np.full(len(chosen), bound))

    def read(split: str, row: int) -> bytes:
        image = Image.fromarray(images[rows[split][row]]).resize((size, size), Image.Resampling.BICUBIC)
        return encoded(image.convert("RGB"), FORMATS[form])

    return Source(
        name="digits",
        classes=tuple(str(name) for name in data.target_names),
        splits=splits,
        read=read,
        identity={"size": size, "format": form},
    )
