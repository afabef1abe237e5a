"""What the kernels have in common: LayerNorm, one head of attention, GELU, products on the tensor cores.

R words (rows) of a tile, c wide, padded to C columns; heads e wide, padded to E; the padding is zero.
ROUND is what operands of a product are rounded to, DOT what the product takes: they differ only in Triton's
interpreter, whose products know no bf16.
"""

import triton
import triton.language as tl


@triton.jit
def operand(x, ROUND: tl.constexpr, DOT: tl.constexpr):
    return x.to(ROUND).to(DOT)


@triton.jit
def product(a, b, ACC: tl.constexpr):
    # Numbers of 32 bits as sums of three of 19: on the tensor cores, and nearly as exact as without them.
    PRECISION: tl.constexpr = "tf32x3" if a.dtype == tl.float32 else "ieee"
    return tl.dot(a, b, input_precision=PRECISION, out_dtype=ACC)


@triton.jit
def matrix(
    pointer, rows, columns, row_stride, inside_rows, inside_columns, ROUND: tl.constexpr, DOT: tl.constexpr
):
    """A part of a weight matrix, as an operand."""
    inside = inside_rows[:, None] & inside_columns[None, :]
    part = tl.load(pointer + rows[:, None] * row_stride + columns[None, :], mask=inside, other=0.0)
    return operand(part, ROUND, DOT)


@triton.jit
def transposed(
    pointer, rows, columns, row_stride, inside_rows, inside_columns, ROUND: tl.constexpr, DOT: tl.constexpr
):
    """The same part, its columns first."""
    inside = inside_columns[:, None] & inside_rows[None, :]
    part = tl.load(pointer + rows[None, :] * row_stride + columns[:, None], mask=inside, other=0.0)
    return operand(part, ROUND, DOT)


@triton.jit
def vector(pointer, index, inside, ACC: tl.constexpr):
    return tl.load(pointer + index, mask=inside, other=0.0).to(ACC)


@triton.jit
def standardised(x, inside_columns, width: tl.constexpr, eps: tl.constexpr):
    """Rows of mean 0 and variance 1, and what they were divided by, inverted."""
    mean = tl.sum(x, axis=1) / width
    centred = tl.where(inside_columns[None, :], x - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, axis=1) / width + eps)
    return centred * scale[:, None], scale


@triton.jit
def standardised_backward(gradient, x_hat, scale, width: tl.constexpr):
    """The gradient of what was standardised, of that of `x_hat`; both are zero in the padding of `x_hat`."""
    mean = tl.sum(gradient, axis=1) / width
    along = tl.sum(gradient * x_hat, axis=1) / width
    return (gradient - mean[:, None] - x_hat * along[:, None]) * scale[:, None]


@triton.jit
def softmax(scores, scale: tl.constexpr, together):
    """Over the words of the same patch."""
    # exp2 is one instruction of the GPU, exp are four.
    scores = tl.where(together, scores * (scale * 1.4426950408889634), float("-inf"))
    weights = tl.exp2(scores - tl.max(scores, axis=1)[:, None])
    return weights * (1.0 / tl.sum(weights, axis=1))[:, None]


@triton.jit
def normal(z, ROUND: tl.constexpr):
    """The normal distribution, cumulated, and its density times √2π.

    Where operands have 16 bits, erf would be what the block spends most instructions on: then it is formula
    7.1.26 of Abramowitz and Stegun, off by 1e-7 at most, which shares its exponential with the density.
    """
    bell = tl.exp2(-0.7213475204444817 * z * z)
    if ROUND.primitive_bitwidth == 16:
        t = tl.rsqrt(1.0 + 0.23164189 * tl.abs(z))
        t *= t  # a division would be seven instructions
        tail = -0.142248368 + t * (0.710706870 + t * (-0.726576014 + t * 0.530702715))
        tail = t * (0.127414796 + t * tail) * bell
        return tl.where(z < 0, tail, 1.0 - tail), bell
    else:
        return 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)), bell


@triton.jit
def gelu(z, ROUND: tl.constexpr):
    below, _ = normal(z, ROUND)
    return z * below


@triton.jit
def gelu_and_slope(z, ROUND: tl.constexpr):
    below, bell = normal(z, ROUND)
    return z * below, below + z * (0.3989422804014327 * bell)


@triton.jit
def add_to(pointers, value, inside):
    tl.store(pointers, tl.load(pointers, mask=inside, other=0.0) + value, mask=inside)
