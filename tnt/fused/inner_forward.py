"""The inner block forward: a tile of patches from the first LayerNorm to the last residual (Eqs. 6–7)."""

import triton
import triton.language as tl

from tnt.fused.layers import gelu, operand, product, softmax, standardised, transposed, vector


@triton.jit
def attention(
    x, qkv, proj, columns, together,
    c: tl.constexpr, heads: tl.constexpr, E: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Eq. 1 and the projection, without its bias, of words `x` that are operands; R, C → R, C

    A head after the other, so that only one head's queries, keys, values and scores are there at once.
    """
    e: tl.constexpr = c // heads
    inside = columns < c
    across = tl.arange(0, E)
    of_head = across < e
    mixed = tl.zeros([x.shape[0], x.shape[1]], dtype=ACC)
    for head in range(heads):
        row = head * e + across  # of the matrix of queries
        q = product(x, transposed(qkv, row, columns, c, of_head, inside, ROUND, DOT), ACC)  # R, E
        k = product(x, transposed(qkv + c * c, row, columns, c, of_head, inside, ROUND, DOT), ACC)
        v = product(x, transposed(qkv + 2 * c * c, row, columns, c, of_head, inside, ROUND, DOT), ACC)
        scores = product(operand(q, ROUND, DOT), tl.trans(operand(k, ROUND, DOT)), ACC)  # R, R
        weights = softmax(scores, e**-0.5, together)
        out = product(operand(weights, ROUND, DOT), operand(v, ROUND, DOT), ACC)  # R, E
        share = transposed(proj, columns, row, c, inside, of_head, ROUND, DOT)  # E, C
        mixed += product(operand(out, ROUND, DOT), share, ACC)
    return mixed


@triton.jit
def mlp(
    x, fc1, fc1_bias, fc2, columns,
    c: tl.constexpr, hidden: tl.constexpr, J: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Eq. 2 without the last bias, J hidden units at a time; R, C → R, C"""
    inside = columns < c
    out = tl.zeros([x.shape[0], x.shape[1]], dtype=ACC)
    for start in range(0, hidden, J):
        unit = start + tl.arange(0, J)
        there = unit < hidden
        z = product(x, transposed(fc1, unit, columns, c, there, inside, ROUND, DOT), ACC)  # R, J
        u = gelu(z + vector(fc1_bias, unit, there, ACC)[None, :], ROUND)
        out += product(
            operand(u, ROUND, DOT), transposed(fc2, columns, unit, hidden, inside, there, ROUND, DOT), ACC
        )
    return out


@triton.jit
def inner_forward(
    x_ptr, y_ptr, kept,
    norm1, norm1_bias, qkv, proj, proj_bias, norm2, norm2_bias, fc1, fc1_bias, fc2, fc2_bias,
    patches,
    m: tl.constexpr, c: tl.constexpr, heads: tl.constexpr, hidden: tl.constexpr, eps: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr, E: tl.constexpr, J: tl.constexpr, DROP: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """x and y: patches · m, c. kept: 2, patches, what drop path multiplies the two residuals with."""
    row = tl.arange(0, R)
    columns = tl.arange(0, C)
    inside = columns < c
    patch = tl.program_id(0) * (R // m) + row // m
    there = (row // m < R // m) & (patch < patches)
    place = (tl.program_id(0) * (R // m) * m + row)[:, None] * c + columns[None, :]
    mask = there[:, None] & inside[None, :]
    together = patch[:, None] == patch[None, :]

    x = tl.load(x_ptr + place, mask=mask, other=0.0).to(ACC)
    x_hat, _ = standardised(x, inside, c, eps)
    n = x_hat * vector(norm1, columns, inside, ACC) + vector(norm1_bias, columns, inside, ACC)
    t = attention(operand(n, ROUND, DOT), qkv, proj, columns, together, c, heads, E, ROUND, DOT, ACC)
    t += vector(proj_bias, columns, inside, ACC)[None, :]
    if DROP:
        t *= tl.load(kept + patch, mask=there, other=0.0).to(ACC)[:, None]
    x += t

    x_hat, _ = standardised(x, inside, c, eps)
    n = x_hat * vector(norm2, columns, inside, ACC) + vector(norm2_bias, columns, inside, ACC)
    t = mlp(operand(n, ROUND, DOT), fc1, fc1_bias, fc2, columns, c, hidden, J, ROUND, DOT, ACC)
    t += vector(fc2_bias, columns, inside, ACC)[None, :]
    if DROP:
        t *= tl.load(kept + patches + patch, mask=there, other=0.0).to(ACC)[:, None]
    tl.store(y_ptr + place, x + t, mask=mask)
