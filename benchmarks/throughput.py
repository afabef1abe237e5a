"""Images per second of our TNT beside timm's, in the same process, inference and training.

    python benchmarks/throughput.py --batch 16 --repeats 15

Each round times every model once, in turn, so that a machine whose speed drifts drifts for all; the medians'
ratio is the figure.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn

import tnt

# Our variant and timm's model of the same network.
PAIRS = {
    "tnt_s": "tnt_s_patch16_224",
    "tnt_b": "tnt_b_patch16_224",
    "tnt_s_legacy": "tnt_s_legacy_patch16_224",
}


def inference(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    model.eval()

    def step() -> None:
        with torch.inference_mode():
            model(images)

    return step


def training(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def compare(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each step, all steps taking turns."""
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(PAIRS), default=["tnt_s"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--drop-path", type=float, default=0.1, help="in training, on both sides")
    options = parser.parse_args()

    versions = f"torch {torch.__version__}, timm {timm.__version__}"
    print(f"CPU {platform.machine()}, {os.cpu_count()} cores, {versions}, fp32")
    images = torch.randn(options.batch, 3, 224, 224)
    labels = torch.randint(0, 1000, (options.batch,))
    print(f"{'model':14} {'mode':10} {'ours img/s':>10} {'timm img/s':>10} {'ratio':>6}")
    for ours, theirs in PAIRS.items():
        if ours not in options.models:
            continue
        models = {
            "ours": tnt.create_model(ours, drop_path=options.drop_path),
            "timm": timm.create_model(theirs, drop_path_rate=options.drop_path),
        }
        for mode in (inference, training):
            seconds = compare(
                {name: mode(model, images, labels) for name, model in models.items()}, options.repeats
            )
            rates = {name: options.batch / value for name, value in seconds.items()}
            ratio = seconds["timm"] / seconds["ours"]
            print(f"{ours:14} {mode.__name__:10} {rates['ours']:10.1f} {rates['timm']:10.1f} {ratio:6.2f}")


if __name__ == "__main__":
    main()
