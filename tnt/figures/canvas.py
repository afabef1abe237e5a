"""Figures for papers: one style, and files whose bytes depend only on what they show."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

SUFFIXES = (".png", ".svg", ".pdf")
# Neither the date nor the version of the program may change the bytes.
METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.linewidth": 0.6,
    "svg.hashsalt": "tnt",
    "pdf.fonttype": 42,  # letters stay text
}
MAP_COLOURS = "viridis"
HEAT_COLOURS = "magma"
WARNING = "#b00020"


class Note(NamedTuple):
    made: str  # how the picture was made
    warning: str = ""  # why it must not be taken for a finding


@contextmanager
def style(more: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Set our style, and `more`, on matplotlib's defaults; the user's own settings are ignored."""
    import matplotlib

    settings: Any = {**matplotlib.rcParamsDefault, "backend": "agg"} | STYLE | dict(more or {})
    with matplotlib.rc_context(settings):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def show_image(axes: Axes, image: Tensor, title: str = "", grey: bool = False) -> None:
    """C, S, S in [-1, 1]; grey, where colours will lie over it"""
    light = (image * 0.5 + 0.5).clamp(0, 1)
    if grey:
        light = 0.75 * light.mean(dim=0, keepdim=True)
    colours = (light * 255).round().byte().expand(3, -1, -1).permute(1, 2, 0)
    axes.imshow(colours.numpy(), extent=(0, 1, 1, 0))
    axes.set_title(title)
    _bare(axes)


def show_map(
    axes: Axes, found: Tensor, colours: str = MAP_COLOURS, limits: tuple[float, float] | None = None
) -> None:
    """h, w; without limits, from the 1st to the 99th percentile of its own values"""
    found = found.float().cpu()
    if limits is None:
        ranked = found.flatten().sort().values
        limits = ranked[int(0.01 * (len(ranked) - 1))].item(), ranked[int(0.99 * (len(ranked) - 1))].item()
    low, high = limits
    axes.imshow(found.numpy(), cmap=colours, vmin=low, vmax=high, extent=(0, 1, 1, 0))
    _bare(axes)


def mark(axes: Axes, place: tuple[int, int], grid: tuple[int, int]) -> None:
    """A frame around a cell of a grid that covers the axes."""
    from matplotlib.patches import Rectangle

    (row, column), (rows, columns) = place, grid
    corner = column / columns, row / rows
    for colour, width in (("black", 2.4), ("white", 1.2)):
        axes.add_patch(
            Rectangle(corner, 1 / columns, 1 / rows, fill=False, edgecolor=colour, linewidth=width)
        )


def row_label(axes: Axes, text: str) -> None:
    axes.text(-0.12, 0.5, text, transform=axes.transAxes, ha="right", va="center")


def below(axes: Axes, text: str) -> None:
    axes.text(0.5, -0.04, text, transform=axes.transAxes, fontsize=6, color="0.3", ha="center", va="top")


def scale_bar(figure: Figure, place: Sequence[float], colours: str, low: str, high: str) -> None:
    """A horizontal colour bar at left, bottom, width, height with words at its ends."""
    import matplotlib

    axes = figure.add_axes((place[0], place[1], place[2], place[3]))
    axes.imshow([[step / 255 for step in range(256)]], cmap=matplotlib.colormaps[colours], aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(-0.02, 0.5, low, transform=axes.transAxes, ha="right", va="center", fontsize=7)
    axes.text(1.02, 0.5, high, transform=axes.transAxes, ha="left", va="center", fontsize=7)


def note(figure: Figure, text: Note) -> None:
    """Write at the lower left how the picture was made."""
    width, height = figure.get_size_inches()
    x, y = 0.1 / width, 0.07 / height
    if text.warning:
        figure.text(x, y, text.warning, fontsize=7, color=WARNING, weight="bold", ha="left", va="bottom")
        y += 0.15 / height
    figure.text(x, y, text.made, fontsize=6.5, color="0.3", ha="left", va="bottom")


def save(figure: Figure, out: Path, dpi: int) -> list[Path]:
    """The file of that name, or PNG, SVG and PDF of that stem; whole or not at all."""
    wanted = [out] if out.suffix in SUFFIXES else [out.with_name(out.name + suffix) for suffix in SUFFIXES]
    if not out.absolute().parent.is_dir():
        raise ValueError(f"no folder {out.absolute().parent} for {out.name}; make it first")
    for path in wanted:
        temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        try:
            figure.savefig(temporary, dpi=dpi, metadata=METADATA[path.suffix])
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return wanted


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def overlay(axes: Axes, activation: Tensor) -> None:
    """h, w of at least 0, over an image; what is low stays see-through"""
    most = activation.max().clamp_min(1e-12)
    strength = (activation / most).cpu().numpy()
    axes.imshow(
        strength,
        cmap=HEAT_COLOURS,
        vmin=0,
        vmax=1,
        alpha=0.2 + 0.6 * strength,
        interpolation="bilinear",
        extent=(0, 1, 1, 0),
    )


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
