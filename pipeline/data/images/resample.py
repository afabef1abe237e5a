"""Interpolation of uint8 images [rows, columns, 3] as Pillow does it, by torch's kernels."""

import numpy as np

from pipeline.data.images.libtorch import NONE, call, several, tensor

BARELY = 1e-3  # added before truncation: float32 sums of weights may fall short of 1


def resize_into(slot: np.ndarray, pixels: np.ndarray, interpolation: str) -> None:
    """Antialiased resize of `pixels`, which may be a window of an image, into `slot`; nothing is allocated.

    torch takes channels-last uint8 without converting; nearly all pixels equal Pillow's.
    """
    image, out = (tensor(array.transpose(2, 0, 1)[None]) for array in (pixels, slot))
    size, corners = several(slot.shape[:2]), False
    call(f"aten::_upsample_{interpolation}2d_aa", "out", [image, size, corners, NONE, NONE, out], returned=1)


def cubic_weights(fraction: np.ndarray) -> np.ndarray:
    """float32 [4, N]: Keys' cubic with a = -1, Pillow's, for the neighbours at -1, 0, 1, 2."""
    d = fraction
    return np.stack(
        [-d + 2 * d**2 - d**3, 1 - 2 * d**2 + d**3, d + d**2 - d**3, d**3 - d**2],
    ).astype(np.float32)


def weigh_rows(neighbours: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Row r of the result is the sum over k of weights[k, r] times row r shifted k columns left.

    neighbours is float32 [rows, columns + 3, 3], the result float32 [rows, columns * 3].
    """
    rows, columns, taps = neighbours.shape[0], neighbours.shape[1] - 3, len(weights)
    flat, sums = neighbours.reshape(rows, -1), np.zeros((rows, 3 * columns), np.float32)
    shifted = several([tensor(flat[:, 3 * tap : 3 * (tap + columns)]) for tap in range(taps)])
    factors = several([tensor(row) for row in weights[:, :, None]])
    # One after the other into the same sums; NumPy would need three times as long.
    totals = several([tensor(sums) for _ in range(taps)])
    ones = np.ones(taps, np.float32)
    call("aten::_foreach_addcmul_", "Tensor", [totals, shifted, factors, tensor(ones)], returned=0)
    return sums


def truncated(values: np.ndarray) -> np.ndarray:
    """float32 to uint8 as Pillow converts: clipped, then cut off."""
    return np.clip(values, 0, 255, out=values).astype(np.uint8)
