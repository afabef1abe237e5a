"""Figures of attention, by head and depth, and of the patches that support a class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from tnt.figures import canvas
from tnt.figures.data import AttentionMaps

if TYPE_CHECKING:
    from tnt.figures.canvas import Figure


def draw_attention(
    image: Tensor,
    by_depth: Mapping[int, AttentionMaps],
    patch: tuple[int, int] | None,
    word: tuple[int, int],
    note: canvas.Note,
    unit: str,
) -> Figure:
    """Left the patch in the image, its outer heads; right the word in the patch, its inner heads."""
    first = next(iter(by_depth.values()))
    outer_heads, (h, w) = len(first.outer), first.outer.shape[1:]
    inner_heads, (q, _) = len(first.inner), first.inner.shape[1:]
    cell, gap, under, label, query = 0.76, 0.06, 0.13, 0.58, 1.2  # inches
    group = query + label
    width = 0.12 + group + outer_heads * (cell + gap) + 0.3 + group + inner_heads * (cell + gap) + 0.1
    above, below = 0.45, 0.78
    height = above + max(len(by_depth) * (cell + gap + under), query + 0.2) + below
    figure = canvas.new_figure(width, height)
    row, column = patch or (h // 2, w // 2)
    edge = image.shape[1] // h
    whole = image, (row, column), (h, w), "class token" if patch is None else f"patch {row},{column}"
    cut = image[:, row * edge : (row + 1) * edge, column * edge : (column + 1) * edge]
    part = cut, word, (q, q), f"word {word[0]},{word[1]} of patch {row},{column}"
    x = 0.12
    for (picture, place, grid, name), kind, heads in ((whole, 0, outer_heads), (part, 1, inner_heads)):
        side = ("outer", "inner")[kind]
        axes = figure.add_axes((x / width, (height - above - query) / height, query / width, query / height))
        canvas.show_image(axes, picture, name)
        if kind == 1 or patch is not None:
            canvas.mark(axes, place, grid)
        x += group
        for line, (depth, found) in enumerate(by_depth.items()):
            for head, looked in enumerate(found[kind]):
                bottom = height - above - line * (cell + gap + under) - cell
                place_of = ((x + head * (cell + gap)) / width, bottom / height, cell / width, cell / height)
                axes = figure.add_axes(place_of)
                canvas.show_map(axes, looked, canvas.HEAT_COLOURS, (0.0, looked.max().item()))
                if kind == 1 or patch is not None:
                    canvas.mark(axes, place, grid)
                if line == 0:
                    axes.set_title(f"{side} head {head + 1}" if head == 0 else f"{head + 1}")
                most = looked.max().item() * looked.numel()
                canvas.below(axes, f"{most:.3g}×")
                if head == 0:
                    canvas.row_label(axes, f"{unit} {depth}")
        x += heads * (cell + gap) + 0.3
    bar = (width - 2.6) / width, 0.42 / height, 1.3 / width, 0.1 / height
    canvas.scale_bar(figure, bar, canvas.HEAT_COLOURS, "0", "largest of each map")
    canvas.note(figure, note)
    return figure


def draw_class_activation(
    image: Tensor, found: Mapping[int, tuple[float, Tensor]], names: list[str], note: canvas.Note
) -> Figure:
    """The image, then for each class the image under its activation, which goes from none to its own most."""
    cell, gap, above, below = 2.1, 0.12, 0.5, 0.72  # inches
    panels = 1 + len(found)
    width, height = panels * (cell + gap) + gap, above + cell + below
    figure = canvas.new_figure(width, height)
    for panel, label in enumerate([None, *found]):
        x = gap + panel * (cell + gap)
        axes = figure.add_axes((x / width, below / height, cell / width, cell / height))
        if label is None:
            canvas.show_image(axes, image, "input")
            continue
        score, activation = found[label]
        canvas.show_image(axes, image, grey=True)
        canvas.overlay(axes, activation)
        axes.set_title(f"{canvas.shortened(names[label], 30)}\nlabel {label}, score {score:.3f}")
    bar = (width - 2.6) / width, 0.36 / height, 1.3 / width, 0.1 / height
    canvas.scale_bar(figure, bar, canvas.HEAT_COLOURS, "none", "largest of each map")
    canvas.note(figure, note)
    return figure
