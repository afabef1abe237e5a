"""Features of a TNT: maps at strides for a detection or segmentation head, and arrays in a file.

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

import torch
from torch import Tensor, nn

from tnt.commandline import Parser, add_model_options, choose_model, progress, run
from tnt.config import TNTConfig
from tnt.feature_store import FeatureStore
from tnt.images import Item, batches, find_images
from tnt.model import TNT
from tnt.shard_images import find_shards, shard_items
from tnt.untrusted.reading import open_regular
from tnt.untrusted.showing import shown

KINDS = ("class", "patches", "words")
FINAL = "final"  # the last block's, patches and class token after the norm: what the head reads


def patch_map(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """B, 1+n, d → B, d, h, w: each patch at its place, stride P; the class token is left out."""
    return patches[:, 1:].transpose(1, 2).unflatten(2, grid)


def word_map(words: Tensor, grid: tuple[int, int]) -> Tensor:
    """B, n, m, c → B, c, h·q, w·q: each word at its place, stride p′"""
    B, _, m, c = words.shape
    (h, w), q = grid, round(m**0.5)
    placed = words.reshape(B, h, w, q, q, c).permute(0, 5, 1, 3, 2, 4)  # B, c, h, q, w, q
    return placed.reshape(B, c, h * q, w * q)


class Backbone(nn.Module):
    """A TNT whose output is a list of maps, as timm's `features_only=True` gives them, finest first.

    Words stand at stride p′ (4) and patches at stride P (16); `channels` and `strides` describe the list to
    the neck that reads it.

    >>> backbone = Backbone(tnt.create_model("tnt_s"), words=[3], patches=[6, 12])
    """

    def __init__(self, model: TNT, patches: Sequence[int] | None = None, words: Sequence[int] = ()) -> None:
        super().__init__()
        config = model.config
        self.model = model
        self.words = list(words)
        self.patches = [config.depth] if patches is None else list(patches)
        self.channels = [config.c] * len(self.words) + [config.patch_dim] * len(self.patches)
        self.strides = [config.word_edge] * len(self.words) + [config.patch_size] * len(self.patches)
        _check_depths([*self.words, *self.patches], config)

    def forward(self, images: Tensor) -> list[Tensor]:
        """B, C, H, W → B, c, H/p′, W/p′ for each depth of `words`; B, d, H/P, W/P for each of `patches`"""
        edge = self.model.config.patch_size
        grid = images.shape[2] // edge, images.shape[3] // edge
        taken = self.model.forward_intermediates(images, {*self.words, *self.patches})
        fine = [word_map(taken[depth].words, grid) for depth in self.words]
        return fine + [patch_map(taken[depth].patches, grid) for depth in self.patches]


def extract(
    model: TNT, images: Tensor, depths: Sequence[int | str] = (FINAL,), kinds: Sequence[str] = ("class",)
) -> dict[str, Tensor]:
    """Features by name, as `depth06.patches`: class token B, d; patches B, n, d; words B, n, m, c."""
    _check_kinds(kinds)
    last = model.config.depth
    numbers = {depth: last if depth == FINAL else int(depth) for depth in depths}
    _check_depths(list(numbers.values()), model.config)
    taken = model.forward_intermediates(images, numbers.values())
    found: dict[str, Tensor] = {}
    for depth, number in numbers.items():
        patches = model.norm(taken[number].patches) if depth == FINAL else taken[number].patches
        parts = {"class": patches[:, 0], "patches": patches[:, 1:], "words": taken[number].words}
        found |= {f"{_depth_name(depth)}.{kind}": parts[kind] for kind in kinds}
    return found


def feature_shapes(
    config: TNTConfig, depths: Sequence[int | str], kinds: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """The shapes of `extract`'s features, of one image."""
    n, m, c, d = config.patches, config.words, config.c, config.patch_dim
    shapes = {"class": (d,), "patches": (n, d), "words": (n, m, c)}
    return {f"{_depth_name(depth)}.{kind}": shapes[kind] for depth in depths for kind in kinds}


def _depth_name(depth: int | str) -> str:
    return FINAL if depth == FINAL else f"depth{int(depth):02d}"


def _check_depths(depths: Sequence[int], config: TNTConfig) -> None:
    if not depths:
        raise ValueError(f"no depths; give some of 0 (stem) to {config.depth} (last block)")
    for depth in depths:
        if not 0 <= depth <= config.depth:
            raise ValueError(f"depth {depth} must lie in 0 (stem) to {config.depth} (last block)")


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
        help="as 0,6,12 (0: the stem); final (default): normed, what the head reads",
    )
    parser.add_argument("--kinds", default="class", help=f"some of {','.join(KINDS)} (default: class)")
    parser.add_argument("--half", action="store_true", help="store 16-bit numbers")
    parser.add_argument("--batch", type=int, default=32, metavar="B", help="images at a time (default: 32)")
    parser.add_argument(
        "--drop-alpha", action="store_true", help="ignore transparency instead of refusing it"
    )
    add_model_options(parser)
    options = parser.parse_args(arguments)
    return run("tnt.features", lambda: _extract_all(options))


def _extract_all(options: argparse.Namespace) -> int:
    depths, kinds = _parse_depths(options.depths), options.kinds.split(",")
    _check_kinds(kinds)
    shards, items = _find(options.sources)
    chosen = choose_model(options)
    config = chosen.model.config
    _check_depths([config.depth if depth == FINAL else int(depth) for depth in depths], config)
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


def _parse_depths(text: str) -> list[int | str]:
    try:
        return [depth if depth == FINAL else int(depth) for depth in dict.fromkeys(text.split(","))]
    except ValueError:
        raise ValueError(f"--depths {text}: give block numbers, as 0,6,12, or {FINAL}") from None


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
