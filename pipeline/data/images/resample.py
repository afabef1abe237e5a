"""Interpolation of uint8 images [rows, columns, 3] as Pillow does it, by torch's kernels."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

BARELY = 1e-3  # added before truncation: float32 sums of weights may fall short of 1


def resize_into(slot: np.ndarray, pixels: np.ndarray, interpolation: str) -> None:
    """Antialiased resize of `pixels`, which may be a window of an image, into `slot`; nothing is allocated.

    torch takes channels-last uint8 without converting; nearly all pixels equal Pillow's.
    """
    kernel: Callable[..., Tensor] = {
        "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,
        "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,
    }[interpolation]
    image, out = (torch.from_numpy(array).permute(2, 0, 1)[None] for array in (pixels, slot))
    kernel(image, slot.shape[:2], False, None, None, out=out)


def weights(fraction: np.ndarray, linear: bool) -> np.ndarray:
    """float32 [4, N], for the neighbours at -1, 0, 1, 2; the cubic is Keys' with a = -1, Pillow's."""
    d, none = fraction, np.zeros_like(fraction)
    linears = [none, 1 - d, d, none]
    cubics = [-d + 2 * d**2 - d**3, 1 - 2 * d**2 + d**3, d + d**2 - d**3, d**3 - d**2]
    return np.stack(linears if linear else cubics).astype(np.float32)


def weigh_rows(neighbours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Row r of the result is the sum over k of weights[k, r] times row r shifted k columns left.

    neighbours is float32 [rows, columns + 3, 3], the result float32 [rows, columns * 3].
    """
    rows, columns = neighbours.shape[0], neighbours.shape[1] - 3
    flat = torch.from_numpy(neighbours.reshape(rows, -1))
    first, *others = torch.from_numpy(weights)[:, :, None]
    total = flat[:, : 3 * columns] * first
    # One after the other into the same sums; NumPy would need three times as long.
    for tap, weight in enumerate(others, 1):
        total.addcmul_(flat[:, 3 * tap : 3 * (tap + columns)], weight)
    return total.numpy()
