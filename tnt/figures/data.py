"""What the pictures show, computed: maps of both networks, their t-SNE, attention, class activation.

An image is one C, S, S tensor; n = h·w patches, d wide, of m = q·q words, c wide; k heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from tnt.embed import patch_map, word_map
from tnt.images import Item, centre, open_image, picture_of, to_tensor
from tnt.model import TNT
from tnt.pyramid.model import PyramidTNT
from tnt.weights.networks import Network

SAMPLE = "china.jpg"


def read_square(path: Path | None, size: int, drop_alpha: bool = False) -> Tensor:
    """C, S, S: the image's central square, resized as in §3.4; a sample image of scikit-learn's if None"""
    if path is not None:
        return to_tensor(centre(open_image(Item(str(path), path), drop_alpha=drop_alpha), size, crop=1.0))
    from sklearn.datasets import load_sample_image

    return to_tensor(centre(picture_of(load_sample_image(SAMPLE)), size, crop=1.0))


def peer_model(checkpoint: Path | None, seed: int) -> nn.Module:
    """timm's DeiT-S, which the paper's Figure 4 shows beside TNT-S."""
    import timm

    torch.manual_seed(seed)
    try:
        return timm.create_model(
            "deit_small_patch16_224", dynamic_img_size=True, checkpoint_path=str(checkpoint or "")
        ).eval()
    except (RuntimeError, KeyError, AttributeError, FileNotFoundError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{checkpoint} holds no weights of timm's deit_small_patch16_224: {reason}"
        ) from error


@torch.inference_mode()
def channel_maps(model: nn.Module, image: Tensor, depths: Sequence[int]) -> dict[int, Tensor]:
    """depth → d, h, w: the patch embeddings after a block, or a pyramid's stage, at their places"""
    if isinstance(model, TNT | PyramidTNT):
        taken = model.forward_intermediates(image[None], depths)
        return {
            depth: patch_map(found.patches, model.grid(image[None], depth))[0]
            for depth, found in taken.items()
        }
    peer: Any = model
    maps = peer.forward_intermediates(
        image[None], indices=[depth - 1 for depth in depths], intermediates_only=True, output_fmt="NCHW"
    )
    return {depth: found[0] for depth, found in zip(depths, maps, strict=True)}


@torch.inference_mode()
def averaged_words(model: Network, image: Tensor, depths: Sequence[int]) -> dict[int, Tensor]:
    """depth → h·q, w·q: the word embeddings at their places, averaged over channels (Figure 5)"""
    taken = model.forward_intermediates(image[None], depths)
    return {
        depth: word_map(found.words, model.grid(image[None], depth))[0].mean(dim=0)
        for depth, found in taken.items()
    }


class Plane(NamedTuple):
    """Channel maps as points; maps that look alike, or opposite, lie close."""

    points: list[Tensor]  # for each network: d, 2
    likeness: list[float]  # for each network: the mean |correlation| of two of its maps


def tsne_plane(maps: Sequence[Tensor], seed: int) -> Plane:
    """One t-SNE of all networks' maps (d, h, w), by 1 − |correlation|: scale and sign do not count."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    coarsest = min((found.shape[1], found.shape[2]) for found in maps)
    flat = [adaptive_avg_pool2d(found.double(), coarsest).flatten(1) for found in maps]
    flat = [rows - rows.mean(dim=1, keepdim=True) for rows in flat]
    flat = [rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12) for rows in flat]
    likeness = []
    for rows in flat:
        alike = (rows @ rows.T).abs()
        count = len(rows)
        likeness.append(((alike.sum() - alike.trace()) / (count * (count - 1))).item())
    joined = torch.cat(flat)
    distances = (1 - (joined @ joined.T).abs()).clamp_min(0).fill_diagonal_(0)
    perplexity = min(30.0, (len(joined) - 1) / 3)
    plane = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=seed, n_jobs=1)
    with threadpool_limits(
        1
    ):  # one order of sums, so one picture; and many threads are slower on so few points
        points = torch.from_numpy(plane.fit_transform(distances.numpy()))
    return Plane(list(points.split([len(rows) for rows in flat])), likeness)


class AttentionMaps(NamedTuple):
    outer: Tensor  # k, h, w: where the patch looks; the class token's share is left out
    inner: Tensor  # k, q, q: where the word looks inside its patch


@torch.inference_mode()
def attention_maps(
    model: Network,
    image: Tensor,
    depths: Sequence[int],
    patch: tuple[int, int] | None,
    word: tuple[int, int],
) -> dict[int, AttentionMaps]:
    """By depth, where a patch looks (None: the class token), and a word inside it (None: the central one).

    Of a pyramid's stage the first block is taken, as it has words, and patches are those of the stage.
    """
    config = model.config
    q = round(config.words**0.5)
    _check_place("word", word, (q, q))
    if isinstance(model, PyramidTNT) and (patch is None or len(depths) > 1):
        what = "stages have other patches; give one by --depths" if patch else "no class token; give --patch"
        raise ValueError(f"a PyramidTNT: {what}")
    found = {}
    for depth in depths:
        if not 1 <= depth <= config.depth:
            raise ValueError(f"depth {depth} has no attention; give 1 (first block) to {config.depth}")
        h, w = model.grid(image[None], depth)
        _check_place("patch", patch, (h, w))
        row, column = patch or (h // 2, w // 2)
        place = row * w + column
        of_pyramid = isinstance(model, PyramidTNT)
        stages: Any = model.stages if of_pyramid else model.blocks
        block = stages[depth - 1].blocks[0] if of_pyramid else stages[depth - 1]
        with _inputs_of(block.inner.attn) as of_words, _inputs_of(block.outer.attn) as of_patches:
            model.forward_intermediates(image[None], [depth])
        query = 0 if patch is None else place + (0 if of_pyramid else 1)
        outer = block.outer.attn.weights(*of_patches[0], query)[0, :, -h * w :].unflatten(1, (h, w))
        inner = block.inner.attn.weights(of_words[0][0][place][None], word[0] * q + word[1])[0]
        found[depth] = AttentionMaps(outer, inner.unflatten(1, (q, q)))
    return found


@contextmanager
def _inputs_of(module: nn.Module) -> Iterator[list[tuple[Any, ...]]]:
    seen: list[tuple[Any, ...]] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    try:
        yield seen
    finally:
        handle.remove()


def _check_place(what: str, place: tuple[int, int] | None, grid: tuple[int, int]) -> None:
    if place and not (0 <= place[0] < grid[0] and 0 <= place[1] < grid[1]):
        raise ValueError(
            f"{what} {place[0]},{place[1]} is outside; rows 0 to {grid[0] - 1}, columns 0 to {grid[1] - 1}"
        )


def class_activation(
    model: Network, image: Tensor, labels: Sequence[int] | None = None, top: int = 3, depth: int | None = None
) -> dict[int, tuple[float, Tensor]]:
    """label → its score and h, w: Grad-CAM on what enters a block's outer attention (the last block's).

    After the last attention the class token no longer reads the patches. Of a pyramid, on what leaves a
    stage, normed, for the next stage or the head. Without labels: the best `top`.
    """
    config = model.config
    depth = depth or config.depth
    if not 1 <= depth <= config.depth or not config.classes:
        raise ValueError(
            f"no class activation at depth {depth}; give 1 to {config.depth} and a model with a head"
        )
    if labels is not None and not all(0 <= label < config.classes for label in labels):
        raise ValueError(f"labels {', '.join(map(str, labels))} must lie in 0 to {config.classes - 1}")
    h, w = model.grid(image[None], depth)
    stages: Any = model.stages if isinstance(model, PyramidTNT) else ()
    blocks: Any = () if stages else model.blocks
    if stages:
        watched = model.norm if depth == len(stages) else stages[depth].merge_patches.norm
    else:
        watched = blocks[depth - 1].outer.norm1
    tokens: list[Tensor] = []

    def watch(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        tokens.append(output.detach().requires_grad_())
        return tokens[0]

    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    handle = watched.register_forward_hook(watch)
    try:
        for parameter in wanted:  # so that nothing before the watched layer is kept for a backward pass
            parameter.requires_grad_(False)
        with torch.enable_grad():
            logits = model(image[None])[0]
        scores = logits.detach().softmax(dim=0)
        found = {}
        for label in scores.topk(min(top, config.classes)).indices.tolist() if labels is None else labels:
            (gradient,) = torch.autograd.grad(logits[label], tokens[0], retain_graph=True)
            weights = gradient[0, -h * w :].mean(dim=0)  # d
            activation = (tokens[0].detach()[0, -h * w :] @ weights).relu().unflatten(0, (h, w))
            found[label] = (scores[label].item(), activation)
    finally:
        handle.remove()
        for parameter in wanted:
            parameter.requires_grad_(True)
    return found
