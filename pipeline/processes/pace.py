"""How fast a run could be on its GPUs, and which of its ranks keeps the others waiting."""

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tnt.config import TNTConfig

if TYPE_CHECKING:
    import torch

    from pipeline.processes.ranks import Ranks


class DataSheet(NamedTuple):
    tflops: float  # a second, dense bf16 (V100: fp16)
    memory: float  # TB/s
    watts: float  # of the board


GPUS = {  # by a part of the device's name
    "B200": DataSheet(2250, 8.0, 1000),
    "H200": DataSheet(989, 4.8, 700),
    "H100": DataSheet(989, 3.35, 700),
    "A100": DataSheet(312, 2.04, 400),
    "L40S": DataSheet(362, 0.864, 350),
    "L4": DataSheet(121, 0.3, 72),
    "A40": DataSheet(150, 0.696, 300),
    "A10": DataSheet(125, 0.6, 150),
    "V100": DataSheet(125, 0.9, 300),
    "RTX 4090": DataSheet(165, 1.008, 450),
    "RTX 3090": DataSheet(71, 0.936, 350),
}
TRAINING = 3  # times the multiply-adds of a forward pass: as many again for each of two gradients
# What must be moved for each value of each word in an inner block, forward and backward, if nothing between
# its ends leaves the chip (benchmarks/network/traffic.py: 0.154 and 0.231 GB for 256 images of TNT-S).
LEAST_WORD_BYTES = 20


def known_gpu(device: str) -> str:
    """Its name in GPUS, or ""."""
    return next((name for name in GPUS if name in device), "")


def limits(network: object, precision: str, macs: int | None, device: str, world: int) -> dict[str, float]:
    """Images a second at which a share would be 1, by its name; none in fp32, and none but on known GPUs.

    `flop_utilisation` counts multiply-adds at the peak alone; for `roofline_share` the words of a TNT's inner
    blocks also pass through memory at its full speed.
    """
    name = known_gpu(device)
    if not name or not macs or precision != "bf16":
        return {}
    sheet = GPUS[name]
    arithmetic = TRAINING * 2 * macs / (sheet.tflops * 1e12)
    moved = 0.0
    if isinstance(network, TNTConfig):
        words = network.depth * network.patches * network.words * network.c
        moved = LEAST_WORD_BYTES * words / (sheet.memory * 1e12)
    return {"flop_utilisation": world / arithmetic, "roofline_share": world / (arithmetic + moved)}


@dataclass(frozen=True)
class SlowRank:
    rank: int
    host: str
    ratio: float  # its own time over the median of all ranks'


class Pace:
    """The time of this rank's own work: its data, forward and backward passes, without those of others.

    Stages 2 and 3 of ZeRO exchange weights or gradients on the way: there, all are as slow as the slowest.
    """

    def __init__(self, device: "torch.device") -> None:
        self._on_gpu = device.type == "cuda"
        self._steps: list[tuple[Any, Any]] = []
        self._first = True

    @contextmanager
    def working(self) -> Iterator[None]:
        begin = self._mark()
        yield
        if not self._first:  # which also starts and compiles
            self._steps.append((begin, self._mark()))
        self._first = False

    def slowest(self, ranks: "Ranks") -> SlowRank | None:
        """Since the last call. All ranks make it, where they wait for the device anyway."""
        steps, self._steps = self._steps, []
        if ranks.world == 1 or not steps:
            return None
        if self._on_gpu:
            own = sum(begin.elapsed_time(end) for begin, end in steps)
        else:
            own = sum(end - begin for begin, end in steps)
        found = ranks.gather((own, socket.gethostname()))
        rank = max(range(ranks.world), key=lambda rank: found[rank][0])
        median = statistics.median_low([own for own, _ in found])
        return SlowRank(rank, found[rank][1], found[rank][0] / median)

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
