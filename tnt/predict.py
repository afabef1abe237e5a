"""Classify images: the best classes, with names and scores.

    python -m tnt.predict photos/ --weights tnt_s.safetensors --top 3
    find photos -name '*.png' | python -m tnt.predict - --weights tnt_s.safetensors --format csv

ImageNet's names, in the order of its labels, are those that torchvision ships.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from tnt.commandline import add_model_options, choose_model, print_table, progress, run
from tnt.images import RGB, Item, batches, find_images
from tnt.untrusted.arguments import Parser, option
from tnt.untrusted.reading import read_text
from tnt.untrusted.showing import shown
from tnt.weights.networks import Network


@dataclass(frozen=True)
class ClassScore:
    label: int
    name: str
    score: float  # a softmax probability


@dataclass(frozen=True)
class Prediction:
    """The best classes of an image, best first; none, and the reason, where it could not be read."""

    image: str
    classes: tuple[ClassScore, ...] = ()
    error: str | None = None


def predict(
    model: Network,
    images: str | Path | Iterable[str | Path],
    *,
    top: int = 5,
    names: list[str] | None = None,
    batch_size: int = 32,
    drop_alpha: bool = False,
) -> list[Prediction]:
    """The best classes of image files and folders of them, in order.

    >>> predict(tnt.create_model("tnt_s", weights="tnt_s.safetensors"), "photos/", top=1)
    """
    sources = [images] if isinstance(images, str | Path) else images
    names = class_names(model) if names is None else names
    return list(
        stream(
            model, find_images(sources), top=top, names=names, batch_size=batch_size, drop_alpha=drop_alpha
        )
    )


def stream(
    model: Network,
    items: Iterable[Item],
    *,
    top: int,
    names: list[str],
    batch_size: int,
    drop_alpha: bool = False,
) -> Iterator[Prediction]:
    """`predict`, one image after another; the model is put into evaluation mode."""
    config = model.config
    if not config.classes:
        raise ValueError("this model has no head (classes=0); take features from it with tnt.features")
    if len(names) != config.classes:
        raise ValueError(
            f"{len(names)} names for a head of {config.classes} classes; give one name per class"
        )
    if top < 1:
        raise ValueError(f"top={top}; give 1 or more")
    device = next(model.parameters()).device
    model.eval()
    channels = getattr(config, "channels", RGB)
    for batch in batches(items, config.image_size, batch_size, channels, drop_alpha):
        found = _best(model, batch.images.to(device), min(top, config.classes))
        for item, error in zip(batch.items, batch.errors, strict=True):
            if error:
                yield Prediction(item.name, error=error)
            else:
                chosen = zip(*next(found), strict=True)
                classes = (ClassScore(label, names[label], score) for label, score in chosen)
                yield Prediction(item.name, tuple(classes))


def _best(model: Network, images: Tensor, top: int) -> Iterator[tuple[list[int], list[float]]]:
    """For each image the best labels and their scores."""
    if len(images):
        with torch.inference_mode():
            best = model(images).float().softmax(dim=1).cpu().topk(top, dim=1)
        yield from zip(best.indices.tolist(), best.values.tolist(), strict=True)


def class_names(model: Network, path: str | Path | None = None) -> list[str]:
    """The names in a file, one a line in label order; else ImageNet's for 1000 of them; or numbers."""
    classes = model.config.classes
    if path is None and classes != 1000:
        return [f"class {label}" for label in range(classes)]
    source = Path(__file__).with_name("imagenet_classes.txt") if path is None else Path(path)
    try:
        names = read_text(source).splitlines()
    except FileNotFoundError:
        raise ValueError(f"no names at {source}") from None
    if len(names) != classes:
        raise ValueError(
            f"{source} names {len(names)} classes, the head has {classes}; "
            "give one name per line in the order of the labels"
        )
    return names


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m tnt.predict", description="Classify images.")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE|FOLDER|-", help="files, folders, or - for paths on standard input"
    )
    parser.add_argument(
        "--top", type=option(1), default=5, metavar="K", help="classes per image (default: 5)"
    )
    parser.add_argument(
        "--classes", metavar="FILE", help="names, one a line (default: ImageNet's for 1000 classes)"
    )
    parser.add_argument("--format", choices=sorted(WRITERS), default="table")
    parser.add_argument(
        "--batch", type=option(1), default=32, metavar="B", help="images at a time (default: 32)"
    )
    parser.add_argument(
        "--drop-alpha", action="store_true", help="ignore transparency instead of refusing it"
    )
    add_model_options(parser)
    options = parser.parse_args(arguments)
    return run("tnt.predict", lambda: _predict(options))


def _predict(options: argparse.Namespace) -> int:
    items = find_images(_sources(options.images))
    if not items:
        raise ValueError("no paths on standard input")
    chosen = choose_model(options, takes_others=True)
    if chosen.random:
        print("tnt.predict: the weights are random, so the answers mean nothing", file=sys.stderr)
    names = class_names(chosen.model, options.classes)
    predictions = stream(
        chosen.model,
        items,
        top=options.top,
        names=names,
        batch_size=options.batch,
        drop_alpha=options.drop_alpha,
    )
    skipped: list[str] = []
    with progress(len(items)) as advance:
        WRITERS[options.format](_counted(predictions, advance, skipped))
    for reason in skipped:
        print(f"tnt.predict: skipped {shown(reason)}", file=sys.stderr)
    if skipped:
        print(f"tnt.predict: {len(skipped)} of {len(items)} images were skipped", file=sys.stderr)
    return 1 if skipped else 0


def _sources(images: list[str]) -> Iterator[str]:
    for image in images:
        if image == "-":
            yield from (line for line in sys.stdin.read().splitlines() if line)
        else:
            yield image


def _counted(
    predictions: Iterable[Prediction], advance: Callable[[], None], skipped: list[str]
) -> Iterator[Prediction]:
    for prediction in predictions:
        if prediction.error:
            skipped.append(prediction.error)
        advance()
        yield prediction


def _write_table(predictions: Iterable[Prediction]) -> None:
    rows: list[tuple[str, ...] | None] = []
    for prediction in predictions:
        for rank, found in enumerate(prediction.classes):
            image = prediction.image if rank == 0 else ""
            rows.append((image, found.name, str(found.label), f"{found.score:.4f}"))
        rows.append(None)
    print_table(("image", "class", "label", "score"), rows)


def _write_json(predictions: Iterable[Prediction]) -> None:
    """One array, an image a line, written as the answers come."""
    before = "["
    for prediction in predictions:
        entry = {name: value for name, value in asdict(prediction).items() if value}
        print(before + "\n" + json.dumps(entry), end="", flush=True)
        before = ","
    print("\n]" if before == "," else "[]")


def _write_csv(predictions: Iterable[Prediction]) -> None:
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["image", "rank", "label", "name", "score"])
    for prediction in predictions:
        for rank, found in enumerate(prediction.classes, start=1):
            rows.writerow(
                [shown(prediction.image), rank, found.label, shown(found.name), f"{found.score:.6f}"]
            )


WRITERS = {"table": _write_table, "json": _write_json, "csv": _write_csv}

if __name__ == "__main__":
    sys.exit(main())
