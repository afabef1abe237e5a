"""Features of a network: maps at strides for a detection or segmentation head, and arrays in a file.

    python -m tnt.features photos/ features.npz --weights tnt_s.safetensors
    python -m tnt.features shards/*.tar features.safetensors --weights tnt_s.safetensors --depths 6,final \\
        --kinds class,patches

B images of n = h·w patches, d wide, of m = q·q words, c wide; P the patch's edge in pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tnt.commandline import add_model_options, choose_model, progress, run
from tnt.config import PyramidConfig
from tnt.embed import patch_map, word_map
from tnt.feature_store import FeatureStore
from tnt.images import Item, batches, find_images
from tnt.shard_images import find_shards, shard_items
from tnt.untrusted.arguments import Parser, option
from tnt.untrusted.reading import open_regular, whole_number
from tnt.untrusted.showing import shown
from tnt.weights.networks import Config, Network

KINDS = ("class", "patches", "words")
FINAL = "final"  # the last block's, patches and class token after the norm: what the head reads


class Backbone(nn.Module):
    """A network whose output is a list of maps, as timm's `features_only=True` gives them, finest first.

    A TNT's words stand at stride p′ (4) and its patches at stride P (16), after the blocks asked for; a
    PyramidTNT's at 2, 4, 8, 16 and 8, 16, 32, 64, after the stages asked for: if none are, maps come at 4
    (words), 8, 16 and 32. `channels` and `strides` describe the list to the neck that reads it.

    >>> backbone = Backbone(tnt.create_model("tnt_s"), words=[3], patches=[6, 12])
    """

    def __init__(
        self, model: Network, patches: Sequence[int] | None = None, words: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        config = model.config
        unsaid = patches is None and words is None and isinstance(config, PyramidConfig)
        self.model = model
        self.words = [2] if unsaid else list(words or ())
        self.patches = [1, 2, 3] if unsaid else [config.depth] if patches is None else list(patches)
        _check_depths([*self.words, *self.patches], config)
        fine, coarse = ([_sizes(config, depth) for depth in some] for some in (self.words, self.patches))
        self.channels = [each.c for each in fine] + [each.d for each in coarse]
        self.strides = [each.stride // round(config.words**0.5) for each in fine]
        self.strides += [each.stride for each in coarse]

    def forward(self, images: Tensor) -> list[Tensor]:
        """B, C, H, W → B, c, H/p′, W/p′ for each depth of `words`; B, d, H/P, W/P for each of `patches`"""
        taken = self.model.forward_intermediates(images, {*self.words, *self.patches})
        fine = [word_map(taken[depth].words, self.model.grid(images, depth)) for depth in self.words]
        return fine + [
            patch_map(taken[depth].patches, self.model.grid(images, depth)) for depth in self.patches
        ]


def extract(
    model: Network, images: Tensor, depths: Sequence[int | str] = (FINAL,), kinds: Sequence[str] = ("class",)
) -> dict[str, Tensor]:
    """Features by name, as `depth06.patches`: class token B, d; patches B, n, d; words B, n, m, c.

    A PyramidTNT's depths are its stages; in place of a class token it has the mean of the patches.
    """
    _check_kinds(kinds)
    numbers = {depth: _number(depth, model.config) for depth in depths}
    _check_depths(list(numbers.values()), model.config)
    taken = model.forward_intermediates(images, numbers.values())
    pyramid = isinstance(model.config, PyramidConfig)
    found: dict[str, Tensor] = {}
    for depth, number in numbers.items():
        tokens = model.norm(taken[number].patches) if depth == FINAL else taken[number].patches
        parts = {
            "class": tokens.mean(dim=1) if pyramid else tokens[:, 0],
            "patches": tokens if pyramid else tokens[:, 1:],
            "words": taken[number].words,
        }
        found |= {f"{_depth_name(depth)}.{kind}": parts[kind] for kind in kinds}
    return found


def feature_shapes(
    config: Config, depths: Sequence[int | str], kinds: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """The shapes of `extract`'s features, of one image."""
    found: dict[str, tuple[int, ...]] = {}
    for depth in depths:
        n, d, c, _ = _sizes(config, _number(depth, config))
        shapes = {"class": (d,), "patches": (n, d), "words": (n, config.words, c)}
        found |= {f"{_depth_name(depth)}.{kind}": shapes[kind] for kind in kinds}
    return found


class _Sizes(NamedTuple):
    n: int
    d: int
    c: int
    stride: int  # of patches, in pixels


def _sizes(config: Config, depth: int) -> _Sizes:
    """After a block of a TNT, or a stage of a PyramidTNT."""
    if isinstance(config, PyramidConfig):
        stage = config.stages[max(0, depth - 1)]
        return _Sizes(stage.edge**2, stage.d, stage.c, config.image_size // stage.edge)
    return _Sizes(config.patches, config.patch_dim, config.c, config.patch_size)


def _depth_name(depth: int | str) -> str:
    return FINAL if depth == FINAL else f"depth{depth:02}"


def _number(depth: int | str, config: Config) -> int:
    return config.depth if isinstance(depth, str) else depth


def _check_depths(depths: Sequence[int], config: Config) -> None:
    if not depths:
        raise ValueError(f"no depths; give some of 0 (stem) to {config.depth} (the last)")
    for depth in depths:
        if not 0 <= depth <= config.depth:
            raise ValueError(f"depth {depth} must lie in 0 (stem) to {config.depth} (the last)")


def _check_kinds(kinds: Sequence[str]) -> None:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(
            f"unknown kind of feature {', '.join(unknown) or '(none)'}; valid: {', '.join(KINDS)}"
        )


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m tnt.features", description="Features of many images.")
    parser.add_argument("sources", nargs="+", metavar="FOLDER|IMAGE|SHARD.tar", help="not both kinds at once")
    parser.add_argument("out", type=Path, metavar="OUT", help="features.npz or features.safetensors")
    parser.add_argument(
        "--depths",
        default=FINAL,
        help="blocks, of a pyramid stages, as 0,6,12 (0: the stem); final (default): normed, for the head",
    )
    parser.add_argument("--kinds", default="class", help=f"some of {','.join(KINDS)} (default: class)")
    parser.add_argument("--half", action="store_true", help="store 16-bit numbers")
    parser.add_argument(
        "--batch", type=option(1), default=32, metavar="B", help="images at a time (default: 32)"
    )
    parser.add_argument(
        "--drop-alpha", action="store_true", help="ignore transparency instead of refusing it"
    )
    add_model_options(parser)
    options = parser.parse_args(arguments)
    return run("tnt.features", lambda: _extract_all(options))


def _extract_all(options: argparse.Namespace) -> int:
    kinds = options.kinds.split(",")
    _check_kinds(kinds)
    shards, items = _find(options.sources)
    chosen = choose_model(options)
    config = chosen.model.config
    depths = _parse_depths(options.depths, config)
    request = {
        "sources": _fingerprint(shards or [item.content for item in items]),
        "weights": chosen.origin if chosen.random else _digest(options.weights),
        "model": chosen.name,
        "size": config.image_size,
        "batch": options.batch,
        "drop_alpha": options.drop_alpha,
    }
    dtype = "float16" if options.half else "float32"
    with FeatureStore(options.out, request, feature_shapes(config, depths, kinds), dtype) as store:
        if store.finished:
            print(f"{options.out}: already complete")
            return _status(store.errors)
        if store.seen:
            print(f"tnt.features: continuing after {store.seen} images", file=sys.stderr)
        source = (item for shard in shards for item in shard_items(shard)) if shards else iter(items)
        coming = batches(
            islice(source, store.seen, None),
            config.image_size,
            options.batch,
            config.channels,
            options.drop_alpha,
        )
        with progress(None if shards else len(items), store.seen) as advance:
            for batch in coming:
                found: dict[str, Tensor] = {}
                if len(batch.images):
                    with torch.inference_mode():
                        found = extract(chosen.model, batch.images.to(options.device), depths, kinds)
                labels = [item.label for item in batch.items]
                store.append(found, [item.name for item in batch.items], labels, batch.errors)
                for _ in batch.items:
                    advance()
        if not store.seen:
            raise ValueError(f"no images in {', '.join(map(str, shards))}")
        store.publish()
    print(f"{options.out}: {store.rows} images, {', '.join(feature_shapes(config, depths, kinds))}")
    return _status(store.errors)


def _status(skipped: Sequence[str]) -> int:
    """Of a command that had to skip these."""
    for error in skipped:
        print(f"tnt.features: skipped {shown(error)}", file=sys.stderr)
    return 1 if skipped else 0


def _parse_depths(text: str, config: Config) -> list[int | str]:
    parts = dict.fromkeys(text.split(","))
    return [part if part == FINAL else whole_number(part, 0, config.depth, "--depths") for part in parts]


def _find(sources: Iterable[str]) -> tuple[list[Path], list[Item]]:
    sources = list(sources)
    shards = find_shards(sources)
    if not shards:
        return [], find_images(sources)
    mixed = [source for source in sources if not source.endswith(".tar") and not find_shards([source])]
    if mixed:
        raise ValueError(f"shards and images at once: {', '.join(mixed)}; extract them one kind at a time")
    return shards, []


def _fingerprint(contents: Sequence[Path | bytes]) -> str:
    """A hash of names and sizes, by which a continued run sees that its files are the same."""
    digest = hashlib.sha256()
    for path in contents:
        assert isinstance(path, Path)
        size = path.stat().st_size if path.exists() else -1
        digest.update(f"{path}\0{size}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _digest(weights: str) -> str:
    path = Path(weights)
    with open_regular(path / "model.safetensors" if path.is_dir() else path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
