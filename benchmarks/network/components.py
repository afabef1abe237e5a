"""The parts of a TNT-S one by one, beside what was predicted for each on an H100, and a trace of its step.

    python benchmarks/network/components.py OUT              on a GPU: batch 256, bf16
    python benchmarks/network/components.py OUT --batch 2    anywhere: the predictions are not of this machine

The predictions (±30 %) are for batch 256 in bf16, with 2.7 TB/s and 550 TFLOP/s for these products; they were
made before anything ran on a GPU. Milliseconds of one block, or of the part that there is once.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import profile

import tnt
from tnt.block import TNTBlock

# Forward and backward, in ms.
PREDICTED = {
    "stem, a convolution": ("1.5-2.5", "2-4"),
    "stem, a product": ("0.2", "0.15"),
    "inner block, fused": ("0.29-0.39", "1.2-1.4"),
    "inner block, PyTorch's": ("at least 0.7", "at least 1.1"),
    "LayerNorm of a patch's words": ("0.043", "0.100"),
    "words to patch, a product": ("0.029", "0.057"),
    "outer block": ("0.70", "1.47"),
    "the whole network": ("", ""),
}


def parts(
    model: tnt.TNT, batch: int, device: torch.device
) -> dict[str, tuple[Callable[..., Tensor], Tensor]]:
    """What computes each part, and what it is given."""
    config, block = model.config, model.blocks[0]
    assert isinstance(block, TNTBlock)
    n, m, c, d, edge = config.patches, config.words, config.c, config.patch_dim, config.patch_size
    images = torch.randn(batch, 3, config.image_size, config.image_size, device=device)
    cut = torch.randn(batch * n, 3, edge, edge, device=device)
    words = torch.randn(batch * n, m, c, device=device)
    patches = torch.randn(batch, 1 + n, d, device=device)

    def fused(words: Tensor) -> Tensor:
        return block.inner_fused(words, patches)[0]

    found: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
        "stem, a convolution": (lambda x: model.stem.conv(x).flatten(2).transpose(1, 2).contiguous(), cut),
        "stem, a product": (model.stem.as_product, cut),
        "inner block, fused": (fused, words),
        "inner block, PyTorch's": (block.inner, words),
        "LayerNorm of a patch's words": (block.to_patch.norm_words, words.flatten(1)),
        "words to patch, a product": (block.to_patch.proj, words.flatten(1)),
        "outer block": (block.outer, patches),
        "the whole network": (model, images),
    }
    if device.type != "cuda":
        del found["inner block, fused"]
    return found


def timed(run: Callable[..., Tensor], given: Tensor, repeats: int) -> tuple[float, float]:
    """Median milliseconds, forward and backward."""
    took: tuple[list[float], list[float]] = [], []
    x = given.requires_grad_()
    for _ in range(repeats + 2):
        marks = [_now(x.device)]
        with torch.autocast(x.device.type, torch.bfloat16):
            out = run(x)
        marks.append(_now(x.device))
        out.backward(torch.ones_like(out))
        marks.append(_now(x.device))
        for kept, (begin, end) in zip(took, itertools.pairwise(marks), strict=True):
            kept.append(1e3 * (end - begin))
    first, second = (statistics.median(kept[2:]) for kept in took)
    return first, second


def trace(model: nn.Module, images: Tensor, path: Path) -> None:
    """Three training steps."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=images.is_cuda)
    with profile() as found:
        for _ in range(3):
            with torch.autocast(images.device.type, torch.bfloat16):
                loss = model(images).float().logsumexp(1).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    found.export_chrome_trace(str(path))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main(argv: Sequence[str] | None = None) -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--batch", type=int, default=256 if gpu else 2)
    parser.add_argument("--repeats", type=int, default=20 if gpu else 3)
    options = parser.parse_args(argv)
    device = torch.device("cuda" if gpu else "cpu")
    model = tnt.create_model("tnt_s").to(device).train()
    where = torch.cuda.get_device_name(device) if gpu else "CPU"
    print(f"TNT-S, batch {options.batch}, bf16, {where}; ms, beside the prediction for an H100 at batch 256")
    print(f"{'part':30} {'forward':>9} {'predicted':>13} {'backward':>9} {'predicted':>14}")
    for name, (run, given) in parts(model, options.batch, device).items():
        forward, backward = timed(run, given, options.repeats)
        before, after = PREDICTED[name]
        print(f"{name:30} {forward:9.3f} {before:>13} {backward:9.3f} {after:>14}", flush=True)
    if gpu:
        model.set_kernels("fused")
    size = model.config.image_size
    trace(model, torch.randn(options.batch, 3, size, size, device=device), options.out / "trace.json.gz")


if __name__ == "__main__":
    main()
