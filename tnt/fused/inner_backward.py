"""The inner block backward: everything that forward computed is computed again, tile by tile.

A program goes over tiles `programs` apart and adds the gradients of the weights to a row of its own, without
atomics: the rows are summed afterwards, always in the same order, so that a run can be repeated bit by bit.
"""

import triton
import triton.language as tl

from tnt.fused.inner_forward import attention
from tnt.fused.layers import (
    add_to,
    gelu_and_slope,
    matrix,
    operand,
    product,
    softmax,
    standardised,
    standardised_backward,
    transposed,
    vector,
)


@triton.jit
def norm_backward(
    gradient, x_hat, scale, norm, into, columns, c: tl.constexpr, ACC: tl.constexpr
):  # fmt: skip
    """The gradient of a LayerNorm's input; those of its gain and bias are added to `into`."""
    inside = columns < c
    add_to(into + columns, tl.sum(gradient * x_hat, axis=0), inside)
    add_to(into + c + columns, tl.sum(gradient, axis=0), inside)
    return standardised_backward(gradient * vector(norm, columns, inside, ACC)[None, :], x_hat, scale, c)


@triton.jit
def attention_backward(
    gradient, x, qkv, proj, into_qkv, into_proj, columns, together,
    c: tl.constexpr, heads: tl.constexpr, E: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Of `attention`: the gradient of x, of that of its result; both as operands; R, C → R, C"""
    e: tl.constexpr = c // heads
    inside = columns < c
    across = tl.arange(0, E)
    of_head = across < e
    mask = of_head[:, None] & inside[None, :]
    gradient_x = tl.zeros([x.shape[0], x.shape[1]], dtype=ACC)
    for head in range(heads):
        row = head * e + across
        at = row[:, None] * c + columns[None, :]  # of one head's queries in the weights
        q = operand(
            product(x, transposed(qkv, row, columns, c, of_head, inside, ROUND, DOT), ACC), ROUND, DOT
        )
        k = operand(
            product(x, transposed(qkv + c * c, row, columns, c, of_head, inside, ROUND, DOT), ACC), ROUND, DOT
        )
        v = operand(
            product(x, transposed(qkv + 2 * c * c, row, columns, c, of_head, inside, ROUND, DOT), ACC),
            ROUND,
            DOT,
        )
        weights = softmax(product(q, tl.trans(k), ACC), e**-0.5, together)  # R, R
        rounded = operand(weights, ROUND, DOT)
        out = operand(product(rounded, v, ACC), ROUND, DOT)  # R, E
        add_to(
            into_proj + columns[:, None] * c + row[None, :],
            product(tl.trans(gradient), out, ACC),
            inside[:, None] & of_head[None, :],
        )

        d_out = operand(
            product(gradient, matrix(proj, columns, row, c, inside, of_head, ROUND, DOT), ACC), ROUND, DOT
        )
        d_v = operand(product(tl.trans(rounded), d_out, ACC), ROUND, DOT)
        d_weights = product(d_out, tl.trans(v), ACC)  # R, R
        d_scores = weights * (d_weights - tl.sum(weights * d_weights, axis=1)[:, None])
        d_scores = operand(d_scores * (e**-0.5), ROUND, DOT)
        d_q = operand(product(d_scores, k, ACC), ROUND, DOT)
        d_k = operand(product(tl.trans(d_scores), q, ACC), ROUND, DOT)

        add_to(into_qkv + at, product(tl.trans(d_q), x, ACC), mask)
        add_to(into_qkv + c * c + at, product(tl.trans(d_k), x, ACC), mask)
        add_to(into_qkv + 2 * c * c + at, product(tl.trans(d_v), x, ACC), mask)
        gradient_x += product(d_q, matrix(qkv, row, columns, c, of_head, inside, ROUND, DOT), ACC)
        gradient_x += product(d_k, matrix(qkv + c * c, row, columns, c, of_head, inside, ROUND, DOT), ACC)
        gradient_x += product(d_v, matrix(qkv + 2 * c * c, row, columns, c, of_head, inside, ROUND, DOT), ACC)
    return gradient_x


@triton.jit
def mlp_backward(
    gradient, x, fc1, fc1_bias, fc2, into_fc1, into_fc1_bias, into_fc2, columns,
    c: tl.constexpr, hidden: tl.constexpr, J: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Of `mlp`: the gradient of x, of that of its result; both as operands; R, C → R, C"""
    inside = columns < c
    gradient_x = tl.zeros([x.shape[0], x.shape[1]], dtype=ACC)
    for start in range(0, hidden, J):
        unit = start + tl.arange(0, J)
        there = unit < hidden
        z = product(x, transposed(fc1, unit, columns, c, there, inside, ROUND, DOT), ACC)  # R, J
        z += vector(fc1_bias, unit, there, ACC)[None, :]
        u, slope = gelu_and_slope(z, ROUND)
        add_to(
            into_fc2 + columns[:, None] * hidden + unit[None, :],
            product(tl.trans(gradient), operand(u, ROUND, DOT), ACC),
            inside[:, None] & there[None, :],
        )
        d_u = product(gradient, matrix(fc2, columns, unit, hidden, inside, there, ROUND, DOT), ACC)
        d_z = d_u * slope
        add_to(into_fc1_bias + unit, tl.sum(d_z, axis=0), there)
        d_z = operand(d_z, ROUND, DOT)
        add_to(
            into_fc1 + unit[:, None] * c + columns[None, :],
            product(tl.trans(d_z), x, ACC),
            there[:, None] & inside[None, :],
        )
        gradient_x += product(d_z, matrix(fc1, unit, columns, c, there, inside, ROUND, DOT), ACC)
    return gradient_x


@triton.jit
def inner_backward(
    dy_ptr, x_ptr, dx_ptr, into, kept,
    norm1, norm1_bias, qkv, proj, proj_bias, norm2, norm2_bias, fc1, fc1_bias, fc2,
    patches, programs,
    m: tl.constexpr, c: tl.constexpr, heads: tl.constexpr, hidden: tl.constexpr, eps: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr, E: tl.constexpr, J: tl.constexpr, DROP: tl.constexpr,
    ROUND: tl.constexpr, DOT: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """`into`: programs, the weights' gradients one after another in the order of the parameters."""
    row = tl.arange(0, R)
    columns = tl.arange(0, C)
    inside = columns < c
    into += tl.program_id(0) * (6 * c + 4 * c * c + hidden + 2 * hidden * c)
    into_qkv = into + 2 * c
    into_proj = into_qkv + 3 * c * c
    into_norm2 = into_proj + c * c + c
    into_fc1 = into_norm2 + 2 * c
    into_fc2 = into_fc1 + hidden * c + hidden

    for tile in range(tl.program_id(0), tl.cdiv(patches, R // m), programs):
        patch = tile * (R // m) + row // m
        there = (row // m < R // m) & (patch < patches)
        place = (tile * (R // m) * m + row)[:, None] * c + columns[None, :]
        mask = there[:, None] & inside[None, :]
        together = patch[:, None] == patch[None, :]

        x = tl.load(x_ptr + place, mask=mask, other=0.0).to(ACC)
        x_hat, scale = standardised(x, inside, c, eps)
        n = x_hat * vector(norm1, columns, inside, ACC) + vector(norm1_bias, columns, inside, ACC)
        n = operand(n, ROUND, DOT)
        t = attention(n, qkv, proj, columns, together, c, heads, E, ROUND, DOT, ACC)
        t += vector(proj_bias, columns, inside, ACC)[None, :]
        if DROP:
            t *= tl.load(kept + patch, mask=there, other=0.0).to(ACC)[:, None]
        x2_hat, scale2 = standardised(x + t, inside, c, eps)

        dx = tl.load(dy_ptr + place, mask=mask, other=0.0).to(ACC)
        dt = dx
        if DROP:
            dt *= tl.load(kept + patches + patch, mask=there, other=0.0).to(ACC)[:, None]
        add_to(into_fc2 + c * hidden + columns, tl.sum(dt, axis=0), inside)
        n2 = x2_hat * vector(norm2, columns, inside, ACC) + vector(norm2_bias, columns, inside, ACC)
        dn = mlp_backward(
            operand(dt, ROUND, DOT), operand(n2, ROUND, DOT), fc1, fc1_bias, fc2,
            into_fc1, into_fc1 + hidden * c, into_fc2, columns, c, hidden, J, ROUND, DOT, ACC,
        )  # fmt: skip
        dx += norm_backward(dn, x2_hat, scale2, norm2, into_norm2, columns, c, ACC)

        dt = dx
        if DROP:
            dt *= tl.load(kept + patch, mask=there, other=0.0).to(ACC)[:, None]
        add_to(into_proj + c * c + columns, tl.sum(dt, axis=0), inside)
        dn = attention_backward(
            operand(dt, ROUND, DOT), n, qkv, proj, into_qkv, into_proj, columns, together,
            c, heads, E, ROUND, DOT, ACC,
        )  # fmt: skip
        dx += norm_backward(dn, x_hat, scale, norm1, into, columns, c, ACC)
        tl.store(dx_ptr + place, dx, mask=mask)
        # The next tile's sums are read by other threads than those that wrote them.
        tl.debug_barrier()
