"""LayerNorm of long rows: that of a patch's words before Eq. 8's product, and that of its result.

The second adds the result to the patches as it goes: `tokens` rows an image of which the first, the class
token, receives nothing. Rows are `width` wide, padded to W; P of them at a time.
"""

import triton
import triton.language as tl

from tnt.fused.layers import standardised, standardised_backward, vector


@triton.jit
def norm_forward(
    x_ptr, sum_ptr, y_ptr, gain, bias, rows,
    width: tl.constexpr, eps: tl.constexpr, tokens: tl.constexpr, W: tl.constexpr, P: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    """y = LayerNorm(x), or where there are tokens: y = sum + LayerNorm(x) and the class token's row of sum"""
    row = tl.program_id(0) * P + tl.arange(0, P)
    columns = tl.arange(0, W)
    inside = columns < width
    normed = row < rows
    source = row
    if tokens:
        normed = normed & (row % tokens != 0)
        source = row - row // tokens - 1
    x = tl.load(
        x_ptr + source[:, None] * width + columns[None, :], mask=normed[:, None] & inside[None, :], other=0.0
    )
    x_hat, _ = standardised(x.to(ACC), inside, width, eps)
    y = x_hat * vector(gain, columns, inside, ACC) + vector(bias, columns, inside, ACC)
    place = row[:, None] * width + columns[None, :]
    mask = (row < rows)[:, None] & inside[None, :]
    if tokens:
        y = tl.where(normed[:, None], y, 0.0) + tl.load(sum_ptr + place, mask=mask, other=0.0).to(ACC)
    tl.store(y_ptr + place, y, mask=mask)


@triton.jit
def norm_backward(
    dy_ptr, x_ptr, other_ptr, dx_ptr, into, gain, rows, programs,
    width: tl.constexpr, eps: tl.constexpr, tokens: tl.constexpr, W: tl.constexpr, P: tl.constexpr,
    OTHER: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """dx, with what else x received added to it (`other`); `into`: programs, gain and bias, width."""
    columns = tl.arange(0, W)
    inside = columns < width
    d_gain = tl.zeros([W], dtype=ACC)
    d_bias = tl.zeros([W], dtype=ACC)
    for tile in range(tl.program_id(0), tl.cdiv(rows, P), programs):
        row = tile * P + tl.arange(0, P)
        source = row
        if tokens:
            source = row + row // (tokens - 1) + 1
        mask = (row < rows)[:, None] & inside[None, :]
        place = row[:, None] * width + columns[None, :]
        x = tl.load(x_ptr + place, mask=mask, other=0.0).to(ACC)
        dy = tl.load(dy_ptr + source[:, None] * width + columns[None, :], mask=mask, other=0.0).to(ACC)
        x_hat, scale = standardised(x, inside, width, eps)
        d_gain += tl.sum(dy * x_hat, axis=0)
        d_bias += tl.sum(dy, axis=0)
        dx = standardised_backward(dy * vector(gain, columns, inside, ACC)[None, :], x_hat, scale, width)
        if OTHER:
            dx += tl.load(other_ptr + place, mask=mask, other=0.0).to(ACC)
        tl.store(dx_ptr + place, dx, mask=mask)
    into += tl.program_id(0) * 2 * width
    tl.store(into + columns, d_gain, mask=inside)
    tl.store(into + width + columns, d_bias, mask=inside)
