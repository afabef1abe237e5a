"""The paper's Figures 4 and 5, attention, and class activation, of any variant and any weights.

    python -m tnt.figures fig4 figure4 --weights tnt_s.safetensors --peer-weights deit_small.pth
    python -m tnt.figures attention looks.svg --weights tnt_s.safetensors --patch 7,7 --word 1,2

Without weights the networks are random, and the picture says so. A seed gives the same bytes again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from tnt.commandline import ChosenModel, add_model_options, choose_model, run, say
from tnt.config import PyramidConfig, nearest_multiple
from tnt.figures import canvas, data
from tnt.figures.attention import draw_attention, draw_class_activation
from tnt.figures.paper import draw_figure_4, draw_figure_5
from tnt.predict import class_names
from tnt.untrusted.arguments import Parser, option
from tnt.untrusted.reading import MOST_OPTION, whole_number

if TYPE_CHECKING:
    from tnt.figures.canvas import Figure


CLASS = "class"  # in a patch's place: the class token


def figure_4(chosen: ChosenModel, image: Tensor, options: argparse.Namespace) -> Figure:
    depths = _depths(options.depths, chosen, first=1, default=_thirds(chosen))
    peer = data.peer_model(options.peer_weights, options.seed)
    blocks = len(list(peer.get_submodule("blocks").children()))
    of_peer = (
        depths
        if _unit(chosen) == "block"
        else [depth * blocks // chosen.model.config.depth for depth in depths]
    )
    _check_peer_depth(of_peer, blocks)
    maps = {
        "DeiT-S": data.channel_maps(peer, image, of_peer),
        _title(chosen): data.channel_maps(chosen.model, image, depths),
    }
    plane = data.tsne_plane([by_depth[max(by_depth)] for by_depth in maps.values()], options.seed)
    made = (
        f"{options.maps} channels drawn at random (seed {options.seed}), {_pixels(image)}. "
        f"t-SNE by 1 − |r|, r the correlation of two maps. {_weights('DeiT-S', options.peer_weights)}"
        f"{_weights(_title(chosen), None if chosen.random else chosen.origin)}"
    )
    untrained = ["DeiT-S"] * (options.peer_weights is None) + [_title(chosen)] * chosen.random
    warning = f"{' and '.join(untrained)} untrained: {_drawn(options.seed)}" if untrained else ""
    note = canvas.Note(made, warning)
    units = {"DeiT-S": "block", _title(chosen): _unit(chosen)}
    return draw_figure_4(image, maps, plane, options.maps, options.seed, note, units)


def figure_5(chosen: ChosenModel, image: Tensor, options: argparse.Namespace) -> Figure:
    depths = _depths(options.depths, chosen, first=0, default=list(range(chosen.model.config.depth + 1)))
    words = data.averaged_words(chosen.model, image, depths)
    config = chosen.model.config
    channels = "their" if isinstance(config, PyramidConfig) else config.c
    made = (
        f"Word embeddings at their places, averaged over {channels} channels; in brackets: least, greatest."
    )
    return draw_figure_5(image, words, _note(chosen, image, options, made), _unit(chosen))


def attention(chosen: ChosenModel, image: Tensor, options: argparse.Namespace) -> Figure:
    pyramid = _unit(chosen) == "stage"
    depths = _depths(options.depths, chosen, first=1, default=[3] if pyramid else _thirds(chosen))
    config = chosen.model.config
    middle = chosen.model.grid(image[None], depths[0])[0] // 2
    patch = None if options.patch == CLASS else options.patch or (middle, middle)
    word = options.word or (round(config.words**0.5) // 2,) * 2
    found = data.attention_maps(chosen.model, image, depths, patch, word)
    query = "of the class token" if patch is None else "of the framed patch"
    made = (
        f"Softmax weights {query}, and of the framed word; under each map its largest as a multiple of the "
        "uniform weight."
    )
    note = _note(chosen, image, options, made)
    return draw_attention(image, found, patch, word, note, _unit(chosen))


def class_activation(chosen: ChosenModel, image: Tensor, options: argparse.Namespace) -> Figure:
    names = class_names(chosen.model, options.classes)
    (depth,) = _depths(options.depths, chosen, first=1, default=[chosen.model.config.depth])
    found = data.class_activation(chosen.model, image, options.label, top=3, depth=depth)
    stage, block = (
        f"the patches that leave stage {depth}",
        f"what enters the outer attention of block {depth}",
    )
    what = stage if _unit(chosen) == "stage" else block
    note = _note(chosen, image, options, f"Grad-CAM on {what}.")
    return draw_class_activation(image, found, names, note)


# name → what draws it, the input's edge in pixels (None: the network's), what it shows
FIGURES: dict[str, tuple[Callable[[ChosenModel, Tensor, argparse.Namespace], Figure], int | None, str]] = {
    "fig4": (figure_4, 1024, "channel maps beside DeiT-S's, and their t-SNE"),
    "fig5": (figure_5, None, "word embeddings at their places, by depth"),
    "attention": (attention, None, "where a patch and a word look, by head and depth"),
    "cam": (class_activation, None, "which patches support a class"),
}


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m tnt.figures", description="Pictures of a TNT at work.")
    subparsers = parser.add_subparsers(dest="figure", required=True, metavar="|".join(FIGURES))
    for name, (_, size, shows) in FIGURES.items():
        figure = subparsers.add_parser(name, help=shows, description=f"Draw {shows}.")
        figure.add_argument(
            "out", type=Path, metavar="OUT", help="x.png, x.svg or x.pdf; all three if just x"
        )
        figure.add_argument("--image", type=Path, help="default: a sample image of scikit-learn's")
        figure.add_argument("--drop-alpha", action="store_true", help="of the image")
        figure.add_argument("--depths", metavar="1,6,12", help="blocks to show")
        figure.add_argument("--dpi", type=option(1, 10_000), default=200, help="of a PNG (default: 200)")
        add_model_options(figure, refuse_random=False, size=size)
        OPTIONS[name](figure)
    options = parser.parse_args(arguments)
    return run("tnt.figures", lambda: _draw(options))


def _draw(options: argparse.Namespace) -> int:
    chosen = choose_model(options, resize=False)
    config = chosen.model.config
    edge = config.multiple if isinstance(config, PyramidConfig) else config.patch_size
    size = config.image_size if options.size is None else options.size
    if size < edge or size % edge:
        near = nearest_multiple(size, edge)
        raise ValueError(f"--size {size} is not a whole number of {edge}-pixel patches; nearest: {near}")
    image = data.read_square(options.image, size, options.drop_alpha)
    if chosen.model.config.channels != 3:
        raise ValueError(
            f"pictures need a model of 3 channels; this one takes {chosen.model.config.channels}"
        )
    draw, _, shows = FIGURES[options.figure]
    say(f"drawing {shows}")
    with canvas.style():
        written = canvas.save(draw(chosen, image, options), options.out, options.dpi)
    print("\n".join(map(str, written)))
    return 0


def _fig4_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peer-weights", type=Path, metavar="FILE", help="of timm's deit_small_patch16_224")
    parser.add_argument("--maps", type=option(1), default=12, help="channels per block (default: 12)")


def _attention_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--patch", type=_place_or_class, metavar="ROW,COLUMN|class", help="default: the middle one"
    )
    parser.add_argument("--word", type=_place, metavar="ROW,COLUMN", help="default: the middle one")


def _cam_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--label", type=option(0), action="append", help="a class by its label (default: best 3)"
    )
    parser.add_argument("--classes", metavar="FILE", help="names, one a line")


OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "fig4": _fig4_options,
    "fig5": lambda parser: None,
    "attention": _attention_options,
    "cam": _cam_options,
}


def _place(text: str) -> tuple[int, int]:
    try:
        row, column = (whole_number(part, 0, MOST_OPTION) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: give ROW,COLUMN, counted from 0") from None
    return row, column


def _place_or_class(text: str) -> tuple[int, int] | str:
    return CLASS if text == CLASS else _place(text)


def _depths(text: str | None, chosen: ChosenModel, first: int, default: list[int]) -> list[int]:
    if text is None:
        return default
    last = chosen.model.config.depth
    return sorted({whole_number(part, first, last, "--depths") for part in text.split(",")})


def _thirds(chosen: ChosenModel) -> list[int]:
    """Blocks 1, 6 and 12 of 12, as the paper shows them."""
    last = chosen.model.config.depth
    return sorted({1, max(1, last // 2), last})


def _unit(chosen: ChosenModel) -> str:
    """What its depths count."""
    return "stage" if isinstance(chosen.model.config, PyramidConfig) else "block"


def _check_peer_depth(depths: list[int], blocks: int) -> None:
    if depths[-1] > blocks:
        raise ValueError(f"DeiT-S has {blocks} blocks; give --depths up to {blocks}")


def _title(chosen: ChosenModel) -> str:
    name, _, changes = chosen.name.partition(" ")
    family = "PyramidTNT-" if _unit(chosen) == "stage" else "TNT-"
    kind, _, rest = name.removeprefix("pyramid_").removeprefix("tnt_").partition("_")
    title = family + {"ti": "Ti"}.get(kind, kind.upper()) + (f" {rest}" if rest else "")
    return title + ("*" if changes else "")


def _pixels(image: Tensor) -> str:
    return f"{image.shape[1]}×{image.shape[2]} pixels"


def _note(chosen: ChosenModel, image: Tensor, options: argparse.Namespace, made: str) -> canvas.Note:
    title = _title(chosen)
    weights = _weights(title, None if chosen.random else chosen.origin)
    warning = f"{title} untrained: {_drawn(options.seed)}" if chosen.random else ""
    return canvas.Note(f"{title}, {_pixels(image)}. {made}{weights}", warning)


def _weights(title: str, path: str | Path | None) -> str:
    return "" if path is None else f" {title}: {Path(path).name}."


def _drawn(seed: int) -> str:
    return f"random weights (seed {seed}); the picture is no finding."
