"""The kernels as functions with derivatives; torch.compile takes them as operators of PyTorch.

`dtype` is what operands of products are rounded to: autocast's, or that of the words.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from tnt.fused.inner_backward import inner_backward
from tnt.fused.inner_forward import inner_forward
from tnt.fused.row_norm import norm_backward, norm_forward
from tnt.fused.tiles import Tile, norm_rows, power, tile_for

EPS = 1e-5
FUSING: dict[str, Any] = {
    "enable_fp_fusion": True
}  # a·b+c at once, which Triton 3.10 no longer takes for granted
PER_PROCESSOR = 8  # programs that share the gradients of the weights among them; each is one warp
TYPES = {
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}


def inner(
    words: Tensor,
    kept: Tensor | None,
    weights: Sequence[Tensor],
    gain: Tensor,
    bias: Tensor,
    heads: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """n, m, c → the words after the inner block, and the same through the LayerNorm before Eq. 8, as `dtype`.

    `weights` are the block's in the order of its parameters; `kept`: 2, n, the factors of drop path.
    """
    return _Inner.apply(words.contiguous(), kept, gain, bias, heads, dtype, *weights)


def enrich(patches: Tensor, update: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """B, 1+n, d and B, n, d → patches plus LayerNorm(update), the class token as it was"""
    return _Enrich.apply(patches.contiguous(), update.contiguous(), gain, bias)


def _operator(name: str, shapes: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An operator for torch.compile; else the function itself, as PyTorch's way to an operator takes the host
    longer than all else that it does for a block. `shapes` makes what it returns, without values."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        operator = torch.library.custom_op(name, function, mutates_args=())
        operator.register_fake(shapes)

        @functools.wraps(function)
        def call(*args: Any) -> Any:
            return (operator if torch.compiler.is_compiling() else function)(*args)

        return call

    return register


def _inner_shapes(words, kept, weights, gain, bias, heads, dtype):  # type: ignore[no-untyped-def]
    return torch.empty_like(words), torch.empty_like(words, dtype=dtype)


@_operator("tnt::inner", _inner_shapes)
def _inner(
    words: Tensor,
    kept: Tensor | None,
    weights: Sequence[Tensor],
    gain: Tensor,
    bias: Tensor,
    heads: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    y, normed = _inner_shapes(words, kept, weights, gain, bias, heads, dtype)
    patches, m, c = words.shape
    tile = tile_for(m, c, heads)
    with _on(words):
        inner_forward[(triton.cdiv(patches, tile.R // m),)](
            words, y, kept, *weights, patches, **_sizes(words, kept, weights, heads, tile, dtype)
        )
        _norm(y, None, normed, gain, bias, 0)
    return y, normed


def _inner_backward_shapes(dy, words, kept, weights, heads, dtype):  # type: ignore[no-untyped-def]
    sizes = sum(weight.numel() for weight in weights)
    return torch.empty_like(words), words.new_empty(sizes, dtype=_accumulator(dtype))


@_operator("tnt::inner_backward", _inner_backward_shapes)
def _inner_backward(
    dy: Tensor, words: Tensor, kept: Tensor | None, weights: Sequence[Tensor], heads: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The gradient of the words, and those of the weights one after another."""
    patches, m, c = words.shape
    tile = tile_for(m, c, heads)
    programs = _programs(words, triton.cdiv(patches, tile.R // m))
    dx = torch.empty_like(words)
    sums = words.new_zeros(programs, sum(weight.numel() for weight in weights), dtype=_accumulator(dtype))
    with _on(words):
        inner_backward[(programs,)](
            dy, words, dx, sums, kept, *weights[:-1], patches, programs,
            **_sizes(words, kept, weights, heads, tile, dtype),
        )  # fmt: skip
    return dx, sums.sum(0)


def _norm_backward_shapes(dy, x, other, gain, tokens):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), x.new_empty(2, gain.numel(), dtype=_accumulator(x.dtype))


@_operator("tnt::row_norm_backward", _norm_backward_shapes)
def _norm_backward(
    dy: Tensor, x: Tensor, other: Tensor | None, gain: Tensor, tokens: int
) -> tuple[Tensor, Tensor]:
    """The gradient of x, plus `other`, and those of gain and bias; where there are `tokens`, dy has all."""
    width = gain.numel()
    rows, height = x.numel() // width, norm_rows(width)
    programs = _programs(x, triton.cdiv(rows, height))
    dx = torch.empty_like(x)
    sums = x.new_empty(programs, 2, width, dtype=_accumulator(x.dtype))
    with _on(x):
        norm_backward[(programs,)](
            dy, x, other, dx, sums, gain, rows, programs,
            width=width, eps=EPS, tokens=tokens, W=power(width), P=height, OTHER=other is not None,
            ACC=TYPES[sums.dtype], **FUSING,
        )  # fmt: skip
    return dx, sums.sum(0)


@_operator("tnt::enrich", lambda patches, update, gain, bias: torch.empty_like(patches))
def _enrich(patches: Tensor, update: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    out = torch.empty_like(patches)
    with _on(patches):
        _norm(update, patches, out, gain, bias, patches.shape[1])
    return out


class _Inner(torch.autograd.Function):
    @staticmethod
    def forward(ctx, words, kept, gain, bias, heads, dtype, *weights):  # type: ignore[no-untyped-def]
        y, normed = _inner(words, kept, weights, gain, bias, heads, dtype)
        ctx.heads, ctx.dtype = heads, dtype
        ctx.set_materialize_grads(False)  # nothing follows the last block's words
        ctx.save_for_backward(words, kept, y, gain, *weights)
        return y, normed

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, d_normed: Tensor | None) -> tuple[Any, ...]:
        words, kept, y, gain, *weights = ctx.saved_tensors
        d_gain = d_bias = None
        if d_normed is not None:
            dy = dy.contiguous() if dy is not None else None
            dy, (d_gain, d_bias) = _norm_backward(d_normed.contiguous(), y, dy, gain, 0)
            d_gain, d_bias = d_gain.to(gain.dtype), d_bias.to(gain.dtype)
        if dy is None:
            return (None,) * (6 + len(weights))
        dx, sums = _inner_backward(dy.contiguous(), words, kept, weights, ctx.heads, ctx.dtype)
        parts = zip(sums.split([weight.numel() for weight in weights]), weights, strict=True)
        gradients = [part.view_as(weight).to(weight.dtype) for part, weight in parts]
        return dx, None, d_gain, d_bias, None, None, *gradients


class _Enrich(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, patches: Tensor, update: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        ctx.tokens = patches.shape[1]
        ctx.save_for_backward(update, gain)
        return _enrich(patches, update, gain, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        update, gain = ctx.saved_tensors
        dy = dy.contiguous()
        dx, (d_gain, d_bias) = _norm_backward(dy, update, None, gain, ctx.tokens)
        return dy, dx, d_gain.to(gain.dtype), d_bias.to(gain.dtype)


def _norm(x: Tensor, added: Tensor | None, out: Tensor, gain: Tensor, bias: Tensor, tokens: int) -> None:
    width = gain.numel()
    rows, height = out.numel() // width, norm_rows(width)
    norm_forward[(triton.cdiv(rows, height),)](
        x, added, out, gain, bias, rows,
        width=width, eps=EPS, tokens=tokens, W=power(width), P=height, ACC=TYPES[_accumulator(x.dtype)],
        **FUSING,
    )  # fmt: skip


def _sizes(
    words: Tensor,
    kept: Tensor | None,
    weights: Sequence[Tensor],
    heads: int,
    tile: Tile,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """The constants of a kernel of the inner block."""
    _, m, c = words.shape
    rounded = TYPES[dtype]
    return {
        "m": m, "c": c, "heads": heads, "hidden": weights[-2].shape[1], "eps": EPS,
        "R": tile.R, "C": tile.C, "E": tile.E, "J": tile.J, "DROP": kept is not None,
        "ROUND": rounded, "DOT": rounded if words.is_cuda else TYPES[_accumulator(dtype)],
        "ACC": TYPES[_accumulator(dtype)], "num_warps": tile.warps, "num_stages": tile.stages, **FUSING,
    }  # fmt: skip


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _programs(tensor: Tensor, tiles: int) -> int:
    if not tensor.is_cuda:
        return min(tiles, 2)
    return min(tiles, PER_PROCESSOR * torch.cuda.get_device_properties(tensor.device).multi_processor_count)


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
