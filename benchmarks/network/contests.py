"""Who is measured against whom: our TNT with either kernels, timm's, and the DeiT of the paper's Table 4."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import tnt
from tnt.complexity.formulas import model_macs

# Our variant, timm's model of the same network, and the DeiT of the paper's Table 4.
RIVALS = {
    "tnt_s": ("tnt_s_patch16_224", "deit_small_patch16_224"),
    "tnt_b": ("tnt_b_patch16_224", "deit_base_patch16_224"),
    "tnt_s_legacy": ("tnt_s_legacy_patch16_224", "deit_small_patch16_224"),
}
MODES = ("plain", "compiled", "fused", "fused+compiled")  # timm's networks have the first two
PIXELS = 224
CLASSES = 1000


@dataclass
class Contestant:
    """One network in one mode, and what was measured of it."""

    side: str  # ours, timm or deit
    name: str
    mode: str
    macs: float  # of one image
    params: int
    step: Callable[[], None]
    memory: float = 0.0  # bytes at the peak, its own weights and optimizer state with it
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Contest:
    variant: str
    training: bool
    batch: int
    precision: str
    device: torch.device
    drop_path: float
    modes: tuple[str, ...]

    def sides(self) -> list[tuple[str, str, str]]:
        """Side, name and mode of every entry; those that matter most come first."""
        rival, deit = RIVALS[self.variant]
        stock = [mode for mode in self.modes if "fused" not in mode]
        return [
            *(("ours", self.variant, mode) for mode in reversed(self.modes)),
            *(("deit", deit, mode) for mode in reversed(stock)),
            *(("timm", rival, mode) for mode in reversed(stock)),
        ]

    def enter(self, side: str, name: str, mode: str) -> Contestant:
        """Build, warm up, and note the memory; compiling happens here."""
        before = _allocated(self.device)
        model = self._network(side, name).to(self.device).train(self.training)
        params = sum(p.numel() for p in model.parameters())
        macs = self._macs(side, name)
        if isinstance(model, tnt.TNT):
            model.set_kernels("fused" if "fused" in mode else "torch")
        step = self._step(torch.compile(model) if "compiled" in mode else model, model)
        for _ in range(2):
            step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        step()
        return Contestant(side, name, mode, macs, params, step, _peak(self.device) - before)

    def time(self, entry: Contestant) -> None:
        _wait(self.device)
        started = time.perf_counter()
        entry.step()
        _wait(self.device)
        entry.seconds.append(time.perf_counter() - started)

    def _network(self, side: str, name: str) -> nn.Module:
        if side == "ours":
            return tnt.create_model(name, drop_path=self.drop_path)
        return timm.create_model(name, drop_path_rate=self.drop_path)

    def _macs(self, side: str, name: str) -> float:
        """Of one image; counted on a network of its own, without weights."""
        if side == "ours":
            return float(model_macs(tnt.get_config(name)))
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            self._network(side, name).eval()(torch.empty(1, 3, PIXELS, PIXELS))
        return counter.get_total_flops() / 2

    def _step(self, forward: Callable[[Tensor], Tensor], model: nn.Module) -> Callable[[], None]:
        images = torch.randn(self.batch, 3, PIXELS, PIXELS, device=self.device)
        labels = torch.randint(0, CLASSES, (self.batch,), device=self.device)

        def autocast() -> torch.autocast:
            return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

        def infer() -> None:
            with torch.inference_mode(), autocast():
                forward(images)

        if not self.training:
            return infer
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def train() -> None:
            optimizer.zero_grad()
            with autocast():
                logits = forward(images)
            nn.functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

        return train


def matrix_peak(device: torch.device, precision: str) -> float:
    """Multiply-adds a second of one large product: the most that this machine does, measured."""
    edge = 8192 if device.type == "cuda" else 2048
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        _wait(device)
        started = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return edge**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _allocated(device: torch.device) -> float:
    return float(torch.cuda.memory_allocated(device)) if device.type == "cuda" else 0.0


def _peak(device: torch.device) -> float:
    return float(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else 0.0
