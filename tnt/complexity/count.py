"""Multiply-adds of a network as fvcore counts them, with attention counted and nothing left uncounted.

fvcore follows a JIT trace, and convolutions cannot be traced on meta tensors, so the trace runs on zeros on
the CPU at batch 1.
"""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

# Operators without a matrix product: elementwise, pooling, reductions, shapes. fvcore ignores most by itself;
# these are what the networks here add.
NO_MATRIX_PRODUCT = {
    "aten::" + name
    for name in (
        *("add", "add_", "sub", "rsub", "mul", "mul_", "div", "ceil", "neg"),
        *("pad", "copy_", "clone", "unflatten", "view_as"),
        *("gelu", "gelu_", "relu", "relu_", "silu", "silu_", "sigmoid", "tanh", "softmax"),
        *("mean", "max_pool2d", "adaptive_avg_pool2d", "avg_pool2d", "upsample_bicubic2d"),
    )
}
MATRIX_PRODUCTS = {"conv", "linear", "addmm", "matmul", "mm", "bmm", "einsum", "attention"}


@dataclass(frozen=True)
class Count:
    """Per image. `matrix` is what the paper calls FLOPs; `other` is what fvcore adds, by operator."""

    matrix: int
    other: dict[str, int]
    uncounted: tuple[str, ...]  # operators that may hold multiply-adds and that nobody counted

    @property
    def total(self) -> int:
        return self.matrix + sum(self.other.values())


def count_macs(model: nn.Module, channels: int, resolution: int) -> Count:
    """Multiply-adds of one image through a model, which stays as it is and may live on the meta device."""
    with quiet_tracer():
        from fvcore.nn import FlopCountAnalysis

    model = _zeros(copy.deepcopy(model)).eval()
    with torch.no_grad(), quiet_tracer():
        analysis = FlopCountAnalysis(model, torch.zeros(1, channels, resolution, resolution))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        counted = {name: int(macs) for name, macs in analysis.by_operator().items()}
        uncounted = sorted(set(analysis.unsupported_ops()) - NO_MATRIX_PRODUCT)
    return Count(
        matrix=sum(macs for name, macs in counted.items() if name in MATRIX_PRODUCTS),
        other={name: macs for name, macs in counted.items() if name not in MATRIX_PRODUCTS},
        uncounted=tuple(uncounted),
    )


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """QKᵀ and its product with V; fvcore itself counts nothing for the fused operator."""
    q, k, v = (value.type().sizes() for value in inputs[:3])  # each …, L, D/h
    pairs = prod(q[:-1]) * k[-2]
    return Counter({"attention": pairs * (q[-1] + v[-1])})


def _zeros(model: nn.Module) -> nn.Module:
    """The model on the CPU with zeros for weights: the trace needs its shapes only."""
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    return model


@contextmanager
def quiet_tracer() -> Iterator[None]:
    """Without the tracer's notes on its deprecation and on sizes that become constants, as they should."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.*")
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*torch.jit.*")
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        yield
