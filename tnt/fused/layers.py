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
    return tl.dot(a, b, input_precision="ieee", out_dtype=ACC)


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
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / width + eps)
    return centred * scale[:, None], scale


@triton.jit
def standardised_backward(gradient, x_hat, scale, width: tl.constexpr):
    """The gradient of what was standardised, of that of `x_hat`; both are zero in the padding of `x_hat`."""
    mean = tl.sum(gradient, axis=1) / width
    along = tl.sum(gradient * x_hat, axis=1) / width
    return (gradient - mean[:, None] - x_hat * along[:, None]) * scale[:, None]


@triton.jit
def softmax(scores, together):
    """Over the words of the same patch."""
    scores = tl.where(together, scores, float("-inf"))
    weights = tl.exp(scores - tl.max(scores, axis=1)[:, None])
    return weights / tl.sum(weights, axis=1)[:, None]


@triton.jit
def gelu(z):
    return 0.5 * z * (1.0 + tl.erf(z * 0.7071067811865476))


@triton.jit
def gelu_slope(z):
    density = 0.3989422804014327 * tl.exp(-0.5 * z * z)
    return 0.5 * (1.0 + tl.erf(z * 0.7071067811865476)) + z * density


@triton.jit
def add_to(pointers, value, inside):
    tl.store(pointers, tl.load(pointers, mask=inside, other=0.0) + value, mask=inside)
