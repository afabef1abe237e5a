"""Bytes and operations of the inner block, plain and fused, and the floor that they set on a chip.

    python benchmarks/network/traffic.py --models tnt_s tnt_b --batch 256

Plain: every operator that PyTorch runs for the block under bf16 autocast reads its operands and writes its
results once; counted, on the CPU, while the block runs on two images. Fused: the words in, the words out, and
backward also their gradients; weights are too small to count. Operations are Eq. 17's multiply-adds, twice,
and once more forward in the fused backward, which computes again instead of reading. Nothing is timed.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import tnt
from tnt.block import TNTBlock

WORD = 4  # bytes of a number of the residual stream, which stays fp32 under autocast
IMAGES = 2
MOVES_NOTHING = ("view", "reshape", "transpose", "t.", "permute", "expand", "unbind", "detach", "alias",
                 "slice", "split", "unsqueeze", "squeeze", "empty", "select", "as_strided")  # fmt: skip


class Traffic(TorchDispatchMode):
    """Counts the bytes of every operator's tensors, in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not str(func).removeprefix("aten.").lstrip("_").startswith(MOVES_NOTHING):
            tensors = tree_leaves((args, kwargs or {}, result))
            self.bytes += sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))
        return result


def plain(block: TNTBlock, config: tnt.TNTConfig) -> tuple[int, int]:
    """Bytes for one image, forward and backward."""
    words = torch.randn(IMAGES * config.patches, config.words, config.c, requires_grad=True)
    with Traffic() as forward, torch.autocast("cpu", torch.bfloat16):
        out = block.inner(words, torch.randint(2**32, (2, len(words))))
    gradient = torch.ones_like(out)
    with Traffic() as backward:
        out.backward(gradient)
    return forward.bytes // IMAGES, backward.bytes // IMAGES


def macs(config: tnt.TNTConfig) -> int:
    """Multiply-adds of one image: the part of Eq. 17 that belongs to the words."""
    m, c = config.words, config.c
    return config.patches * m * (4 * c * c + 2 * m * c + 2 * config.mlp_ratio * c * c)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(tnt.VARIANTS), default=["tnt_s", "tnt_b"])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--bandwidth", type=float, default=4.8, help="TB/s of the chip's memory")
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s of the chip, dense bf16")
    options = parser.parse_args()
    chip = f"a chip of {options.bandwidth} TB/s and {options.peak:g} TFLOP/s"
    print(f"one inner block, batch {options.batch}, bf16 autocast, drop path 0.1; {chip}")
    print("| model | pass | path | GB moved | GFLOP | memory, µs | arithmetic, µs |")
    print("|---|---|---|---|---|---|---|")
    for name in options.models:
        config = tnt.get_config(name)
        moved = plain(TNTBlock(config, 0.1).train(), config)
        stream = WORD * config.patches * config.words * config.c
        for part, bytes_plain, streams, operations, repeated in (
            ("forward", moved[0], 2, 2, 0),
            ("backward", moved[1], 3, 4, 2),
        ):
            rows = (("plain", bytes_plain, operations), ("fused", streams * stream, operations + repeated))
            for path, size, times in rows:
                gb, gflop = size * options.batch / 1e9, times * macs(config) * options.batch / 1e9
                floor = f"{gb / options.bandwidth * 1e3:.0f} | {gflop / options.peak * 1e3:.0f}"
                print(f"| {name} | {part} | {path} | {gb:.3f} | {gflop:.1f} | {floor} |")


if __name__ == "__main__":
    main()
