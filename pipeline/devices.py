"""What a run computes on, as a login node can tell it: without torch, and without a GPU of its own."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from pipeline.cluster import processor
from pipeline.config import RunConfig

# Dense bf16 (V100: fp16) tensor-core TFLOP/s of the vendor's data sheets, by a part of the device's name.
PEAKS = {
    "B200": 2250,
    "H200": 989,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "A40": 150,
    "A10": 125,
    "V100": 125,
    "RTX 4090": 165,
    "RTX 3090": 71,
}
UNKNOWN_GPU = "A100"  # where a scheduler will choose
CORE = 32e9  # multiply-adds a second of a core with 16 in a cycle at 2 GHz
SHARE = 0.4  # of the peak that large matrices reach


def gpus() -> list[str]:
    """The names of the GPUs that processes started here would see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = _installed()
    return found if visible is None else found[: len([part for part in visible.split(",") if part.strip()])]


def cores() -> int:
    return len(os.sched_getaffinity(0))


def local_device(config: RunConfig) -> str:
    """The name that a run's record would give its device here."""
    found = [] if config.engine.device == "cpu" else gpus()
    return found[0] if found else f"CPU {processor()}"


def is_cpu(device: str) -> bool:
    return device.startswith("CPU")


def macs_per_second(device: str, config: RunConfig) -> tuple[float, str]:
    """Of arithmetic, where nothing was measured, and what that is taken from. "": not known yet."""
    if is_cpu(device):
        threads = config.engine.threads or cores()
        return (
            SHARE * CORE * threads,
            f"{SHARE:.0%} of {CORE / 1e9:g} G multiply-adds/s on each of {threads} cores",
        )
    name = next((name for name in PEAKS if name in device), UNKNOWN_GPU)
    assumed = "" if name in device else " (assumed)"
    half = 0.5 if config.precision == "bf16" else 0.25
    return SHARE * half * PEAKS[name] * 1e12, f"{SHARE:.0%} of an {name}'s peak{assumed}"


@functools.cache
def _installed() -> list[str]:
    if not (command := shutil.which("nvidia-smi")):
        names = Path("/proc/driver/nvidia/gpus").glob("*/information")
        return [found[1] for path in names if (found := re.search(r"Model:\s*(.+)", path.read_text()))]
    try:
        done = subprocess.run(
            [command, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if not done.returncode else []
