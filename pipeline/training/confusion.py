"""Which class is taken for which, as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tnt.figures.canvas import HEAT_COLOURS, new_figure, save, style

NAMED = 40  # more classes than these have no room for names


def draw(confusion: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Rows are classes, columns answers, colours the share of the row."""
    share = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
    with style():
        figure = new_figure(5.5, 4.8)
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        picture = axes.imshow(share, cmap=f"{HEAT_COLOURS}_r", vmin=0, vmax=1, interpolation="nearest")
        if len(classes) <= NAMED:
            axes.set_xticks(range(len(classes)), classes, rotation=90)
            axes.set_yticks(range(len(classes)), classes)
        axes.set_xlabel("answer")
        axes.set_ylabel("class")
        figure.colorbar(picture, label="share of the class's images")
        save(figure, path, dpi=150)
