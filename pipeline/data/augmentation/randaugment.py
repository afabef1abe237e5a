"""RandAugment's operations on uint8 images [rows, columns, 3]: Pillow's results, several times as fast.

Tables are equal to Pillow's bit by bit. Colour, sharpness, shear and translation differ by one level in some
pixels (float32 sums); rotation differs because the parameter of OpenCV's cubic is -0.75 and Pillow's -1.
"""

import functools
import itertools
import math
from collections.abc import Callable

import cv2
import numpy as np

from pipeline.data.augmentation.policy import NOTHING, OPERATIONS
from pipeline.data.images.resample import BARELY, weigh_rows, weights

Pixels = np.ndarray
Fill = tuple[int, int, int]
Geometric = Callable[[Pixels, float, Fill, bool], Pixels]
LEVELS = np.arange(256)
LUMA = np.array([[19595, 38470, 7471]], np.float32) / 65536  # Pillow's
EDGE = 3
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def use_one_thread() -> None:
    cv2.setNumThreads(0)


def randaugment(
    pixels: Pixels, operations: np.ndarray, arguments: np.ndarray, linear: np.ndarray, fill: Fill
) -> Pixels:
    """Apply one view's row of the table of draws; returns the input itself if there is no operation."""
    rows = zip(operations.tolist(), arguments.tolist(), linear.tolist(), strict=True)
    for operation, argument, interpolated in rows:
        if operation != NOTHING:
            pixels = apply_operation(OPERATIONS[operation], pixels, argument, fill, interpolated)
    return pixels


def mirrored(pixels: Pixels) -> Pixels:
    return cv2.flip(pixels, 1)


def apply_operation(name: str, pixels: Pixels, argument: float, fill: Fill, linear: bool = False) -> Pixels:
    """`linear`: geometric operations interpolate between 2 × 2 pixels instead of 4 × 4."""
    if name in GEOMETRIC:
        return GEOMETRIC[name](pixels, argument, fill, linear)
    return TONAL[name](pixels, argument)


# Operations on colour values: one OpenCV call where there is one, otherwise a table of 256 levels.


def _auto_contrast(pixels: Pixels, _: float) -> Pixels:
    table = np.empty((256, 3), np.uint8)
    lows, highs = pixels.min(0).min(0).tolist(), pixels.max(0).max(0).tolist()
    for channel, (low, high) in enumerate(zip(lows, highs, strict=True)):
        if high <= low:
            table[:, channel] = LEVELS
        else:
            scale = 255.0 / (high - low)
            table[:, channel] = np.clip((LEVELS * scale - low * scale).astype(np.int64), 0, 255)
    return _look_up(pixels, table)


def _equalize(pixels: Pixels, _: float) -> Pixels:
    table = np.empty((256, 3), np.uint8)
    for channel in range(3):
        histogram = cv2.calcHist([pixels], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        used = histogram[histogram > 0]
        step = int(used.sum() - used[-1]) // 255
        if len(used) <= 1 or not step:
            table[:, channel] = LEVELS
        else:
            before = np.concatenate(([0], np.cumsum(histogram)[:-1]))
            table[:, channel] = np.minimum((step // 2 + before) // step, 255)
    return _look_up(pixels, table)


def _invert(pixels: Pixels, _: float) -> Pixels:
    return cv2.bitwise_not(pixels)


def _posterize(pixels: Pixels, bits: float) -> Pixels:
    """0 bits leave black, as in Pillow 12; later versions refuse them, though timm asks for them."""
    return pixels if bits >= 8 else pixels & np.uint8(-(1 << (8 - int(bits))) & 255)


def _solarize(pixels: Pixels, threshold: float) -> Pixels:
    _, turned = cv2.threshold(pixels, math.ceil(threshold) - 1, 255, cv2.THRESH_BINARY)
    return cv2.bitwise_xor(pixels, turned)


def _solarize_add(pixels: Pixels, add: float) -> Pixels:
    _, added = cv2.threshold(pixels, 127, int(add), cv2.THRESH_BINARY_INV)
    return cv2.add(pixels, added)


def _brightness(pixels: Pixels, factor: float) -> Pixels:
    return _look_up(pixels, _blend_levels(0, factor))


def _contrast(pixels: Pixels, factor: float) -> Pixels:
    return _look_up(pixels, _blend_levels(int(_luma(pixels).mean() + 0.5), factor))


def _blend_levels(level: int, factor: float) -> np.ndarray:
    """`_blend` of one level with each of the 256, in float32 as Pillow does it: clipped, then cut off."""
    change = (LEVELS - level).astype(np.float32)
    return np.clip(np.float32(level) + np.float32(factor) * change, 0, 255).astype(np.uint8)


def _color(pixels: Pixels, factor: float) -> Pixels:
    return _blend(cv2.cvtColor(_luma(pixels), cv2.COLOR_GRAY2RGB), pixels, factor)


def _sharpness(pixels: Pixels, factor: float) -> Pixels:
    """Pillow leaves the border of the smoothed image as it is. No sum of 13ths lies near a half: exact."""
    smooth = cv2.filter2D(pixels, -1, SMOOTH)
    smooth[0], smooth[-1], smooth[:, 0], smooth[:, -1] = pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]
    return _blend(smooth, pixels, factor)


def _look_up(pixels: Pixels, table: np.ndarray) -> Pixels:
    return cv2.LUT(pixels, table.astype(np.uint8).reshape(1, 256, -1))


def _luma(pixels: Pixels) -> Pixels:
    """Every product and sum is exact in float32; only halves may be rounded differently."""
    return cv2.transform(pixels, LUMA)


def _blend(low: Pixels, high: Pixels, factor: float) -> Pixels:
    """low + factor · (high - low), cut off as Pillow does: rounding to nearest after - 1/2 is truncation."""
    return cv2.addWeighted(low, 1 - factor, high, factor, BARELY - 0.5)


# Geometric operations. As in Pillow, a pixel whose centre falls outside the source gets the fill colour;
# for interpolation within the source its edge is repeated.


def _rotate(pixels: Pixels, degrees: float, fill: Fill, linear: bool) -> Pixels:
    rows, columns = pixels.shape[:2]
    angle = -math.radians(degrees % 360)
    cos, sin = math.cos(angle), math.sin(angle)
    # From a pixel's centre to the point sampled, both measured from the middle; OpenCV counts from centres.
    x0, y0 = (columns - 1) / 2, (rows - 1) / 2
    matrix = np.array([[cos, sin, x0 - cos * x0 - sin * y0], [-sin, cos, y0 + sin * x0 - cos * y0]])
    # Repeating the edge for a few pixels beforehand is faster than OpenCV's own border mode for it.
    matrix[:, 2] += EDGE
    turned = cv2.warpAffine(
        cv2.copyMakeBorder(pixels, EDGE, EDGE, EDGE, EDGE, cv2.BORDER_REPLICATE),
        matrix,
        (columns, rows),
        flags=(cv2.INTER_LINEAR if linear else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP,
    )
    x = np.arange(columns, dtype=np.float32) - np.float32(x0)
    y = np.arange(rows, dtype=np.float32)[:, None] - np.float32(y0)
    outside = np.abs(x * np.float32(cos) + y * np.float32(sin)) > columns / 2
    outside |= np.abs(y * np.float32(cos) - x * np.float32(sin)) > rows / 2
    return _filled(turned, outside, fill)


def _shear_x(pixels: Pixels, slope: float, fill: Fill, linear: bool) -> Pixels:
    """Row r is sampled slope · (r + 1/2) columns further right: one set of weights for each row.

    Several successive rows move by the same whole number of columns and are copied as one slice.
    """
    rows, columns = pixels.shape[:2]
    shift = slope * (np.arange(rows) + 0.5)
    whole = np.floor(shift).astype(np.int64)
    reach = int(np.abs(whole).max()) + 3
    padded = cv2.copyMakeBorder(pixels, 0, 0, reach, reach, cv2.BORDER_REPLICATE)
    neighbours = np.empty((rows, columns + 3, 3), np.float32)
    breaks = [0, *(np.flatnonzero(np.diff(whole)) + 1).tolist(), rows]
    for first, last in itertools.pairwise(breaks):
        start = reach + int(whole[first]) - 1
        neighbours[first:last] = padded[first:last, start : start + columns + 3]
    sums = weigh_rows(neighbours, weights(shift - whole, linear))
    moved = cv2.addWeighted(sums, 1, sums, 0, BARELY - 0.5, dtype=cv2.CV_8U).reshape(pixels.shape)
    column = np.arange(columns, dtype=np.int16)
    low, high = (np.ceil(edge - shift - 0.5).astype(np.int16)[:, None] for edge in (0, columns))
    return _filled(moved, (column < low) | (column >= high), fill)


def _translate_x(pixels: Pixels, share: float, fill: Fill, linear: bool) -> Pixels:
    columns = pixels.shape[1]
    shift = share * columns
    whole = math.floor(shift)
    out = _plain(pixels.shape, fill).copy()
    first, last = max(0, math.ceil(-shift - 0.5)), min(columns, math.ceil(columns - shift - 0.5))
    if first < last:
        kernel = weights(np.array([shift - whole]), linear).T
        padded = cv2.copyMakeBorder(pixels, 0, 0, 3, 3, cv2.BORDER_REPLICATE)
        # Rounding to nearest after - 1/2 is truncation.
        moved = cv2.filter2D(padded, -1, kernel, anchor=(1, 0), delta=BARELY - 0.5)
        out[:, first:last] = moved[:, first + whole + 3 : last + whole + 3]
    return out


def _by_columns(operation: Geometric) -> Geometric:
    """The same along the other axis."""

    def turned(pixels: Pixels, amount: float, fill: Fill, linear: bool) -> Pixels:
        return cv2.transpose(operation(cv2.transpose(pixels), amount, fill, linear))

    return turned


def _filled(pixels: Pixels, outside: np.ndarray, fill: Fill) -> Pixels:
    return cv2.copyTo(_plain(pixels.shape, fill), outside.view(np.uint8), pixels)


@functools.lru_cache(maxsize=4)
def _plain(shape: tuple[int, ...], fill: Fill) -> Pixels:
    """An image of one colour, kept because filling it for each view would take longer than the shear."""
    plain = np.empty(shape, np.uint8)
    plain[:] = fill
    plain.flags.writeable = False
    return plain


TONAL: dict[str, Callable[[Pixels, float], Pixels]] = {
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": _color,
    "Contrast": _contrast,
    "Brightness": _brightness,
    "Sharpness": _sharpness,
}
GEOMETRIC: dict[str, Geometric] = {
    "Rotate": _rotate,
    "ShearX": _shear_x,
    "ShearY": _by_columns(_shear_x),
    "TranslateXRel": _translate_x,
    "TranslateYRel": _by_columns(_translate_x),
}
