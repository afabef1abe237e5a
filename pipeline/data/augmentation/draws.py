"""The tables of draws: one row per view, each a pure function of (seed, epoch, position).

`draw_views` draws what a worker needs to render a view, `draw_batch` what is needed to finish a batch. They
use separate streams of random numbers, so that finishing a batch does not need the sizes of its images.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.data.augmentation.policy import DRAWS_PER_LAYER, Policy
from pipeline.data.augmentation.settings import MIX_GROUPS, MIX_SPAN, Augmentation
from pipeline.data.randomness import Purpose, philox, uniforms

TRIES = 10  # timm draws a box up to ten times, then takes one that always fits
ERASE_AREA = (0.02, 1 / 3)
ERASE_RATIO = (0.3, 1 / 0.3)


@dataclass(frozen=True, eq=False)
class ViewDraws:
    """One row per view."""

    crop: np.ndarray  # int32 [N, 4]: top, left, height, width in the stored image
    flip: np.ndarray  # bool [N]
    operation: np.ndarray  # int8 [N, layers], index into policy.OPERATIONS or NOTHING
    argument: np.ndarray  # float64 [N, layers]
    linear: np.ndarray  # bool [N, 1 + layers]: interpolation of the crop and each operation; else cubic


@dataclass(frozen=True, eq=False)
class BatchDraws:
    """What happens to a batch after its views are rendered: erasing by view, mixing by group."""

    seed: int
    epoch: int
    position: np.ndarray  # int64 [N], keys the erasing noise
    erase: np.ndarray  # int32 [N, 4]: top, left, height, width; height 0 = not erased
    groups: tuple[slice, ...]  # views of this batch that share what follows
    weight: np.ndarray  # float64 [groups]: the view's own share of the target; 1 = not mixed
    cut: np.ndarray  # int32 [groups, 4]: top, bottom, left, right of the partner's box; bottom 0 = mixup

    def __len__(self) -> int:
        return len(self.position)


def draw_views(
    aug: Augmentation,
    seed: int,
    epoch: int,
    positions: np.ndarray,
    width: np.ndarray,
    height: np.ndarray,
) -> ViewDraws:
    """Draws of the views at `positions` of the epoch; width and height are their images' [N].

    A table of a batch costs about 3 µs a view, a call for a single image some 140 µs: ask for many at once.
    """
    positions = np.asarray(positions, np.int64)
    u = uniforms(seed, Purpose.CROP, epoch, positions, 2 * TRIES + 3)
    policy = Policy.parse(aug.randaugment)
    if policy is None:
        operation, argument = np.zeros((len(u), 0), np.int8), np.zeros((len(u), 0))
    else:
        table = uniforms(seed, Purpose.POLICY, epoch, positions, policy.layers * DRAWS_PER_LAYER)
        operation, argument = policy.draw(table)
    return ViewDraws(
        crop=_crops(aug, np.asarray(width, np.int64), np.asarray(height, np.int64), u),
        flip=u[:, -1] < aug.flip,
        operation=operation,
        argument=argument,
        linear=_linear(aug, seed, epoch, positions, 1 + operation.shape[1]),
    )


def draw_batch(
    aug: Augmentation, seed: int, epoch: int, step: int, positions: np.ndarray, slots: np.ndarray
) -> BatchDraws:
    """Draws of a batch or of whole pairing blocks of it.

    `slots` are the views' indices in the global batch, in order and in complete pairing blocks: a part of the
    batch is mixed exactly as it would be within the whole global batch.
    """
    positions, slots = np.asarray(positions, np.int64), np.asarray(slots, np.int64)
    block = aug.pairing_block
    first = slots[::block]
    assert (first % block == 0).all(), "a part of the batch begins inside a pairing block"
    assert np.array_equal(slots, (first[:, None] + np.arange(block)).ravel()), "a pairing block is incomplete"
    groups, numbers = _groups(slots) if aug.mixes else ((), [])
    weight, cut = np.ones(len(groups)), np.zeros((len(groups), 4), np.int32)
    for row, number in enumerate(numbers):
        weight[row], cut[row] = _mix(aug, seed, epoch, step, number)
    u = uniforms(seed, Purpose.ERASE, epoch, positions, 2 * TRIES + 3)
    return BatchDraws(seed, epoch, positions, _erasures(aug, u), groups, weight, cut)


def _groups(slots: np.ndarray) -> tuple[tuple[slice, ...], list[int]]:
    """The groups that whole pairing blocks have views of, and their numbers in the global batch."""
    spans = slots // MIX_SPAN
    edges = [0, *(np.flatnonzero(np.diff(spans)) + 1).tolist(), len(slots)]
    parts = [(edge, part) for edge in pairwise(edges) for part in range(MIX_GROUPS)]
    groups = tuple(slice(start + part, stop, MIX_GROUPS) for (start, stop), part in parts)
    return groups, [int(spans[start]) * MIX_GROUPS + part for (start, _), part in parts]


def _linear(aug: Augmentation, seed: int, epoch: int, positions: np.ndarray, count: int) -> np.ndarray:
    if aug.interpolation == "random":
        return uniforms(seed, Purpose.INTERPOLATION, epoch, positions, count) < 0.5
    return np.full((len(positions), count), aug.interpolation == "bilinear")


def _boxes(
    u: np.ndarray, area: np.ndarray, share: tuple[float, float], ratio: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """TRIES boxes of uniform area and log-uniform ratio: their edges √(area · ratio) and √(area / ratio)."""
    target = (share[0] + (share[1] - share[0]) * u[:, 0 : 2 * TRIES : 2]) * area
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = np.exp(low + (high - low) * u[:, 1 : 2 * TRIES : 2])
    first, second = np.rint(np.sqrt([target * aspect, target / aspect])).astype(np.int64)
    return first, second


def _crops(aug: Augmentation, width: np.ndarray, height: np.ndarray, u: np.ndarray) -> np.ndarray:
    """timm's RandomResizedCrop: the first of ten boxes that fits, else the largest centred one.

    An edge that rounds to 0 (images a few pixels wide) is 1 here; timm fails there.
    """
    w, h = _boxes(u, (width * height)[:, None], aug.scale, aug.ratio)
    fits = (w <= width[:, None]) & (h <= height[:, None])
    rows, first = np.arange(len(u)), fits.argmax(1)
    w, h = np.maximum(w[rows, first], 1), np.maximum(h[rows, first], 1)
    top, left = _place(u[:, 2 * TRIES], height - h), _place(u[:, 2 * TRIES + 1], width - w)
    crop = np.stack([top, left, h, w], axis=1)
    for row in np.flatnonzero(~fits.any(1)):
        crop[row] = _central_crop(int(width[row]), int(height[row]), aug.ratio)
    return crop.astype(np.int32)


def _central_crop(width: int, height: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = min(width, round(height * ratio[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def _erasures(aug: Augmentation, u: np.ndarray) -> np.ndarray:
    """timm's RandomErasing: the first of ten boxes that is smaller than the image; none if none is."""
    size = aug.image_size
    h, w = _boxes(u, np.full((len(u), 1), float(size * size)), ERASE_AREA, ERASE_RATIO)
    fits = (w < size) & (h < size)
    rows, first = np.arange(len(u)), fits.argmax(1)
    w, h = w[rows, first], h[rows, first]
    top, left = _place(u[:, 2 * TRIES], size - h), _place(u[:, 2 * TRIES + 1], size - w)
    box = np.stack([top, left, h, w], axis=1).astype(np.int32)
    box[(u[:, -1] >= aug.erase) | ~fits.any(1)] = 0
    return box


def _place(u: np.ndarray, room: np.ndarray) -> np.ndarray:
    """A uniform integer in 0 … room."""
    return np.floor(u * (room + 1)).astype(np.int64)


def _mix(aug: Augmentation, seed: int, epoch: int, step: int, group: int) -> tuple[float, tuple[int, ...]]:
    """timm's batch mode: lambda ~ Beta(a, a); cutmix's box has area 1 - lambda before the border clips it.

    Half of an edge is rounded down, as in timm 0.3.2, by which the published networks were trained.
    """
    draw = np.random.Generator(philox(seed, Purpose.MIX, epoch, high=step, low=group << 32))
    applies, switch = draw.random(2)
    if applies >= aug.mix_probability:
        return 1.0, (0, 0, 0, 0)
    cuts = aug.cutmix > 0 and (aug.mixup <= 0 or switch < aug.switch_probability)
    alpha = aug.cutmix if cuts else aug.mixup
    weight = float(draw.beta(alpha, alpha))
    if not cuts:
        return weight, (0, 0, 0, 0)
    size = aug.image_size
    half = int(size * math.sqrt(1 - weight)) // 2
    y, x = (int(centre) for centre in draw.integers(0, size, 2))
    top, bottom = max(0, y - half), min(size, y + half)
    left, right = max(0, x - half), min(size, x + half)
    if top >= bottom or left >= right:
        return 1.0, (0, 0, 0, 0)
    return 1 - (bottom - top) * (right - left) / size**2, (top, bottom, left, right)
