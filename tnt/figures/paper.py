"""The paper's Figures 4 and 5: what the channels of both networks hold, and what the words hold, by depth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tnt.figures import canvas
from tnt.figures.data import Plane

if TYPE_CHECKING:
    from tnt.figures.canvas import Axes, Figure

PEER_COLOUR, OUR_COLOUR = "#c46a1b", "#2b6cb0"


def draw_figure_4(
    image: Tensor,
    maps: Mapping[str, Mapping[int, Tensor]],
    plane: Plane,
    columns: int,
    seed: int,
    note: canvas.Note,
    units: Mapping[str, str],
) -> Figure:
    """(a) random channels by network and depth, (b) all channels of the last depth in one plane.

    `units`: what a network's depths count, blocks or stages.
    """
    depths = list(next(iter(maps.values())))
    cell, gap, left, scatter = 0.47, 0.04, 2.3, 2.75  # inches
    rows = len(maps) * len(depths)
    grid_width = columns * (cell + gap)
    width = left + grid_width + 0.5 + scatter + 0.12
    below, above, between = 0.72, 0.36, 0.3
    height = below + max(rows * (cell + gap) + (len(maps) - 1) * between, scatter + 0.35) + above
    figure = canvas.new_figure(width, height)

    def axes_at(x: float, y: float, w: float, h: float) -> Axes:
        """Inches from the top left corner."""
        return figure.add_axes((x / width, (height - y - h) / height, w / width, h / height))

    canvas.show_image(axes_at(0.15, (above + height - below) / 2 - 0.65, 1.3, 1.3), image, "input")
    figure.text(0.12 / width, 1 - 0.1 / height, "(a)", weight="bold", fontsize=10, va="top")
    y = above
    for name, by_depth in maps.items():
        middle = y + len(depths) * (cell + gap) / 2
        figure.text(
            (left - 0.66) / width,
            1 - middle / height,
            name,
            rotation=90,
            ha="center",
            va="center",
            weight="bold",
        )
        for depth, channels in by_depth.items():
            chosen = torch.randperm(len(channels), generator=torch.Generator().manual_seed(seed + depth))
            for column, channel in enumerate(chosen[:columns].sort().values.tolist()):
                axes = axes_at(left + column * (cell + gap), y, cell, cell)
                canvas.show_map(axes, channels[channel])
                if column == 0:
                    canvas.row_label(axes, f"{units[name]} {depth}")
            y += cell + gap
        y += between
    bar = (left + grid_width - 2.95) / width, 0.47 / height, 1.3 / width, 0.1 / height
    canvas.scale_bar(figure, bar, canvas.MAP_COLOURS, "1st percentile", "99th percentile of each map")
    x = left + grid_width + 0.3
    figure.text(x / width, 1 - 0.1 / height, "(b)", weight="bold", fontsize=10, va="top")
    names = list(maps)
    last = " and ".join(dict.fromkeys(f"{units[name]} {[*maps[name]][-1]}" for name in names))
    _scatter(axes_at(x + 0.2, above, scatter, scatter), names, plane, f"channels of {last}, t-SNE")
    canvas.note(figure, note)
    return figure


def _scatter(axes: Axes, names: list[str], plane: Plane, title: str) -> None:
    styles = ((PEER_COLOUR, "^"), (OUR_COLOUR, "o"))
    for name, points, likeness, (colour, marker) in zip(
        names, plane.points, plane.likeness, styles, strict=True
    ):
        label = f"{name}: mean |r| of two maps {likeness:.2f}"
        axes.scatter(
            points[:, 0].numpy(),
            points[:, 1].numpy(),
            s=11,
            c=colour,
            marker=marker,
            linewidths=0,
            alpha=0.75,
            label=label,
        )
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), frameon=False, fontsize=7.5, markerscale=1.6)


def draw_figure_5(image: Tensor, by_depth: Mapping[int, Tensor], note: canvas.Note, unit: str) -> Figure:
    """The input, then the words at their places, averaged over channels, each depth on its own scale."""
    panels = len(by_depth) + 1
    columns = min(panels, 5 if panels <= 10 else 7)
    rows = -(-panels // columns)
    cell, gap, title, below = 1.35, 0.1, 0.22, 0.6  # inches
    width, height = columns * (cell + gap) + gap, rows * (cell + gap + title) + gap + below
    figure = canvas.new_figure(width, height)
    spread = {depth: (found.min().item(), found.max().item()) for depth, found in by_depth.items()}
    for panel, depth in enumerate([None, *by_depth]):
        row, column = divmod(panel, columns)
        x, y = gap + column * (cell + gap), gap + row * (cell + gap + title) + title
        axes = figure.add_axes((x / width, (height - y - cell) / height, cell / width, cell / height))
        if depth is None:
            canvas.show_image(axes, image, "input")
            continue
        canvas.show_map(axes, by_depth[depth])
        low, high = (f"{end:.2g}".replace("-", "−") for end in spread[depth])
        axes.set_title(f"{f'{unit} {depth}' if depth else 'stem'}  [{low}, {high}]")
    bar = (width - 2.95) / width, 0.36 / height, 1.3 / width, 0.1 / height
    canvas.scale_bar(figure, bar, canvas.MAP_COLOURS, "1st percentile", "99th percentile of each map")
    canvas.note(figure, note)
    return figure
