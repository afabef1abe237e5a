"""What is done to a batch after its views are rendered, on the device when there is one.

Shapes: B views, C channels, H rows, W columns, K classes. Arithmetic is float32. Nothing depends on how the
global batch is cut into ranks and micro-batches of whole pairing blocks.
"""

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pipeline.data.augmentation.draws import BatchDraws, draw_batch
from pipeline.data.augmentation.noise import MASK, normals
from pipeline.data.augmentation.settings import MIX_GROUPS, PAIRING_BLOCK, Augmentation
from pipeline.data.randomness import Purpose, philox


def finish_train(
    images: Tensor,  # uint8 [B, H, W, C]
    labels: Tensor,  # int64 [B]
    aug: Augmentation,
    classes: int,
    device: torch.device | str = "cpu",
    *,
    seed: int,
    epoch: int,
    step: int,
    position: np.ndarray,  # int64 [B], names the views in the epoch
    slot: np.ndarray,  # int64 [B], their indices in the global batch
) -> tuple[Tensor, Tensor]:
    """Normalised, erased and mixed images [B, C, H, W] in channels-last memory, and soft targets [B, K]."""
    draws = draw_batch(aug, seed, epoch, step, position, slot)
    assert len(images) == len(labels) == len(draws), "one label, position and slot per view"
    x = finish_evaluation(images, aug, device)
    for change in (_mix, _erase) if aug.mix_first else (_erase, _mix):
        change(x, draws)
    return x, soft_targets(labels.to(device, non_blocking=True), draws, aug, classes)


def finish_evaluation(images: Tensor, aug: Augmentation, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [B, H, W, C] to normalised float32 [B, C, H, W] in channels-last memory."""
    x = images.to(device, non_blocking=True).permute(0, 3, 1, 2).to(torch.float32)
    mean, std = _of_channels(aug.mean, x.device), _of_channels(aug.std, x.device)
    return x.div_(255).sub_(mean).div_(std)


@functools.cache
def _of_channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """C, 1, 1; made once, as the way of a constant to a GPU makes this process wait for it."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def soft_targets(labels: Tensor, draws: BatchDraws, aug: Augmentation, classes: int) -> Tensor:
    """Smoothed one-hot rows, mixed with the partner's: float32 [B, K]."""
    off = aug.smoothing / classes
    y = torch.full((len(labels), classes), off, device=labels.device)
    y.scatter_(1, labels.long().view(-1, 1), 1 - aug.smoothing + off)
    for views, weight, _ in _groups(draws):
        if weight != 1:
            part = y[views]
            part.copy_(part * weight + _partners(part) * (1 - weight))
    return y


def _mix(x: Tensor, draws: BatchDraws) -> None:
    for views, weight, (top, bottom, left, right) in _groups(draws):
        if weight == 1:
            continue
        part = x[views]
        if bottom:
            window = part[:, :, top:bottom, left:right]
            window.copy_(_partners(window))
        else:
            partners = _partners(part).mul_(1 - weight)
            part.mul_(weight).add_(partners)


def _partners(part: Tensor) -> Tensor:
    """A copy with each view's partner in its place: a group has two views of each pairing block."""
    return part.reshape(-1, PAIRING_BLOCK // MIX_GROUPS, *part.shape[1:]).flip(1).reshape(part.shape)


def _erase(x: Tensor, draws: BatchDraws) -> None:
    """All boxes of the batch at once: a handful of kernels, however many views are erased."""
    views = np.flatnonzero(draws.erase[:, 2])
    if not len(views):
        return
    table = np.concatenate([views[:, None], draws.position[views, None], draws.erase[views]], axis=1)
    area = table[:, 4] * table[:, 5]
    columns = torch.from_numpy(np.column_stack([table, area, np.cumsum(area) - area]))
    columns = columns.to(x.device, non_blocking=True)
    row = torch.repeat_interleave(
        torch.arange(len(views), device=x.device), columns[:, 6], output_size=int(area.sum())
    )
    view, position, top, left, _, width, _, first = columns[row].unbind(1)
    pixel = torch.arange(len(row), device=x.device) - first
    key = philox(draws.seed, Purpose.NOISE, draws.epoch).random_raw(1)[0]
    noise = normals(pixel, position, (int(key) & MASK, int(key) >> 32))
    # Advanced indices around a slice: the result is [P, C].
    x[view, :, top + pixel // width, left + pixel % width] = noise


def _groups(draws: BatchDraws) -> Iterator[tuple[slice, float, list[int]]]:
    return zip(draws.groups, draws.weight.tolist(), draws.cut.tolist(), strict=True)
