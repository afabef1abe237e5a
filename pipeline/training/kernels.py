"""Which kernels compute the inner blocks of a TNT: PyTorch's, or the fused ones of `tnt.fused`.

`engine.kernels=auto` compares what both compute on the GPU of every rank, and times both at the size of the
run's own batches, before the first step: nothing is claimed for a chip, a shape or a version of Triton that
was not measured there and then.
"""

import copy
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.processes.ranks import Ranks
from tnt.block import TNTBlock
from tnt.config import TNTConfig
from tnt.fused.tiles import misfit
from tnt.model import KERNELS, TNT

ROUNDS = 15  # of which the median counts
WARMING = 3
COMPARED = 2  # images
SLACK, FLOOR = 2.0, {"bf16": 5e-3, "fp32": 2e-5}
KEPT = "inner blocks by the kernels that the run began with: {}"


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
    if before == "torch":
        return before, KEPT.format(before)
    if torch.are_deterministic_algorithms_enabled() and not before:
        return "torch", "inner blocks by PyTorch's kernels: a choice by time would not be deterministic"
    problem, said = compare(model.config, device, load)
    problem = next((one for one in ranks.gather(problem) if one), "")
    if problem:
        return "torch", f"inner blocks by PyTorch's kernels: {problem}"
    if before:
        return before, f"{KEPT.format(before)}; {said}"
    name, times = ranks.lead(lambda: _faster(model.config, device, load))
    return name, f"{times}; {said}"


def _why_not(model: nn.Module, device: torch.device) -> str:
    if not isinstance(model, TNT):
        return f"{type(model).__name__} is no TNT"
    if reason := misfit(model.config):
        return reason
    return "" if device.type == "cuda" else f"they need a CUDA device, and this run is on {device.type}"


def _faster(config: TNTConfig, device: torch.device, load: Load) -> tuple[str, str]:
    plain, fused = (seconds(config, name, device, load) for name in KERNELS)
    name, who = ("fused", "the fused kernels") if fused < plain else ("torch", "PyTorch's kernels")
    times = (
        f"{plain * 1e3:.2f} ms a block by PyTorch's, {fused * 1e3:.2f} ms fused ({plain / fused:.2f} times)"
    )
    return name, f"inner blocks by {who}: {times}"


def seconds(config: TNTConfig, kernels: str, device: torch.device, load: Load) -> float:
    """Of one block's inner part and its words' way into the patches; the median of some rounds."""
    with torch.random.fork_rng(), torch.device(device):
        block = TNTBlock(config, config.drop_path).train(load.training)
        inputs = _inputs(config, load.images)
        for _ in range(WARMING):
            _pass(block, kernels, inputs, load)
        return statistics.median(
            _timed(lambda: _pass(block, kernels, inputs, load), device) for _ in range(ROUNDS)
        )


def compare(config: TNTConfig, device: torch.device, load: Load) -> tuple[str, str]:
    """What is wrong with the fused kernels on this device, "" for nothing, and how exact they are.

    One block is computed by both, and in float64. Outputs and gradients of the fused kernels may be SLACK
    times as far from those in float64 as PyTorch's, and FLOOR more.
    """
    with torch.random.fork_rng(), torch.device(device):
        block = TNTBlock(config, config.drop_path).train(load.training)
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        words, patches, drawn = inputs = _inputs(config, COMPARED)
        exact = copy.deepcopy(block).double(), (words.double(), patches.double(), drawn)
        truth = _pass(exact[0], "torch", exact[1], dataclasses.replace(load, precision="fp32"))
        plain = _gaps(_pass(block, "torch", inputs, load), truth)
        try:
            fused = _gaps(_pass(block, "fused", inputs, load), truth)
        except Exception as error:  # no compiler on the node, a GPU that Triton does not know, …
            first = (str(error) or type(error).__name__).splitlines()[0]
            return f"the fused ones failed here ({first})", ""
    allowed = {name: SLACK * gap + FLOOR[load.precision] for name, gap in plain.items()}
    name = max(fused, key=lambda name: fused[name] / allowed[name])
    figures = f"{name} off by {fused[name]:.1e}, by PyTorch's {plain[name]:.1e}, allowed {allowed[name]:.1e}"
    wrong = any(not gap <= allowed[name] for name, gap in fused.items())
    return (f"the fused ones compute other numbers here: {figures}", "") if wrong else ("", figures)


def _gaps(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """Relative, of the root of the mean square; infinite where something is not finite."""
    gaps = {name: float((found[name].double() - truth[name]).norm() / truth[name].norm()) for name in truth}
    return {name: gap if math.isfinite(gap) else math.inf for name, gap in gaps.items()}


def _inputs(config: TNTConfig, images: int) -> tuple[Tensor, Tensor, Tensor]:
    """Words, patches, and what decides which paths of the words are dropped."""
    words = torch.randn(images * config.patches, config.words, config.c)
    patches = torch.randn(images, 1 + config.patches, config.patch_dim)
    return words, patches, torch.randint(2**32, (2, len(words)))


def _pass(
    block: TNTBlock, kernels: str, inputs: tuple[Tensor, Tensor, Tensor], load: Load
) -> dict[str, Tensor]:
    """What the block's inner part and its words' way into the patches give; in training all gradients too."""
    words, patches, drawn = inputs
    learnt = {"words": words.detach().requires_grad_(), "patches": patches.detach().requires_grad_()}
    inner = block.inner_fused if kernels == "fused" else block.inner_plain
    with (
        torch.set_grad_enabled(load.training),
        torch.autocast(words.device.type, torch.bfloat16, enabled=load.precision == "bf16"),
    ):
        outputs = inner(learnt["words"], learnt["patches"], drawn)
    found = {name: one.detach() for name, one in zip(("words", "patches"), outputs, strict=True)}
    if load.training:
        parts = (block.inner, block.to_patch)
        learnt |= {name: weight for part in parts for name, weight in part.named_parameters()}
        gradients = torch.autograd.grad(outputs, list(learnt.values()), (words, patches))
        found |= {f"gradient of {name}": one for name, one in zip(learnt, gradients, strict=True)}
    return found


def _timed(step: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
