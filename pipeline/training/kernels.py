"""Which kernels compute the inner blocks of a TNT: PyTorch's, or the fused ones of `tnt.fused`.

`engine.kernels=auto` times both on a GPU, at the size of the run's own batches, before the first step:
nothing is claimed for a chip, a shape or a version of Triton that was not measured there and then.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.processes.ranks import Ranks
from tnt.block import TNTBlock
from tnt.config import TNTConfig
from tnt.fused.tiles import misfit
from tnt.model import TNT

ROUNDS = 15  # of which the median counts
WARMING = 3


@dataclass(frozen=True)
class Load:
    """What a network will be given."""

    images: int
    precision: str
    training: bool


def choose(
    networks: Sequence[nn.Module],
    wanted: str,
    device: torch.device,
    load: Load,
    ranks: Ranks,
    before: str = "",
) -> tuple[str, str]:
    """Set the kernels of some copies of one network: which, the same on all ranks, and why in a line.

    `before`: what a run began with; it keeps them where they can be had and nobody asked for others, so that
    it goes on bit by bit.
    """
    name, why = _choice(networks[0], wanted, device, load, ranks, before)
    for network in networks:
        if isinstance(network, TNT):  # others have but one kind
            network.set_kernels(name)
    return name, why


def _choice(
    model: nn.Module, wanted: str, device: torch.device, load: Load, ranks: Ranks, before: str
) -> tuple[str, str]:
    why_not = _why_not(model, device)
    if wanted == "fused" and why_not:
        raise UserError(f"engine.kernels=fused: {why_not}; take engine.kernels=auto")
    if wanted != "auto":
        return wanted, ""
    if why_not or not isinstance(model, TNT):
        return "torch", ""
    if before:
        return before, f"inner blocks by the kernels that the run began with: {before}"
    return ranks.share(_faster(model.config, device, load) if ranks.rank == 0 else None)


def _why_not(model: nn.Module, device: torch.device) -> str:
    if not isinstance(model, TNT):
        return f"{type(model).__name__} is no TNT"
    if reason := misfit(model.config):
        return reason
    return "" if device.type == "cuda" else f"they need a CUDA device, and this run is on {device.type}"


def _faster(config: TNTConfig, device: torch.device, load: Load) -> tuple[str, str]:
    plain = seconds(config, "torch", device, load)
    try:
        fused = seconds(config, "fused", device, load)
    except Exception as error:  # no compiler on the node, a GPU that Triton does not know, …
        first = (str(error) or type(error).__name__).splitlines()[0]
        return "torch", f"inner blocks by PyTorch's kernels: the fused ones failed here ({first})"
    name, who = ("fused", "the fused kernels") if fused < plain else ("torch", "PyTorch's kernels")
    times = (
        f"{plain * 1e3:.2f} ms a block by PyTorch's, {fused * 1e3:.2f} ms fused ({plain / fused:.2f} times)"
    )
    return name, f"inner blocks by {who}: {times}"


def seconds(config: TNTConfig, kernels: str, device: torch.device, load: Load) -> float:
    """Of one block's inner part and its words' way into the patches; the median of some rounds."""
    with torch.random.fork_rng(), torch.device(device):
        block = TNTBlock(config, config.drop_path).train(load.training)
        inner = block.inner_fused if kernels == "fused" else block.inner_plain
        words = torch.randn(load.images * config.patches, config.words, config.c)
        patches = torch.randn(load.images, 1 + config.patches, config.patch_dim)
        words.requires_grad_(load.training)
        patches.requires_grad_(load.training)
        drawn = torch.randint(2**32, (2, len(words)))

        def step() -> None:
            with (
                torch.set_grad_enabled(load.training),
                torch.autocast(device.type, torch.bfloat16, enabled=load.precision == "bf16"),
            ):
                out_words, out_patches = inner(words, patches, drawn)
            if load.training:
                gradients = torch.ones_like(out_words), torch.ones_like(out_patches)
                torch.autograd.backward((out_words, out_patches), gradients)

        for _ in range(WARMING):
            step()
        return statistics.median(_timed(step, device) for _ in range(ROUNDS))


def _timed(step: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
