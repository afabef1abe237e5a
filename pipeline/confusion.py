"""Which class is taken for which, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.publish import published

NAMED = 40  # more classes than these have no room for names


def draw(confusion: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Rows are classes, columns answers, colours the share of the row."""
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"confusion={path}: the name must end in .png, .svg or .pdf")
    from matplotlib.figure import Figure

    share = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(share, cmap="magma_r", vmin=0, vmax=1, interpolation="nearest")
    if len(classes) <= NAMED:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("answer")
    axes.set_ylabel("class")
    figure.colorbar(picture, label="share of the class's images")
    with published(path) as file:
        figure.savefig(file, format=path.suffix[1:], dpi=120)
