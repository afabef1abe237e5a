"""What a run computes on, as a login node can tell it: without torch, and without a GPU of its own."""

import ctypes
import functools
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.processes.place import Place

if TYPE_CHECKING:
    import torch

# glibc's mallopt: what is freed goes back to the kernel, page by page, only beyond these bytes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, MOST_MMAP = -1, -3, 32 << 20
ALL = (1 << 31) - 1


def gpus() -> list[str]:
    """The names of the GPUs that processes started here would see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = _installed()
    return found if visible is None else found[: len([part for part in visible.split(",") if part.strip()])]


def cores() -> int:
    """How many cores this process may use; on a shared node not all of them."""
    return len(os.sched_getaffinity(0))


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


def find_device(name: str, place: Place, threads: int = 0, deterministic: bool = False) -> "torch.device":
    """`name` is auto, cpu or cuda; with several GPUs in sight each local rank takes its own.

    `threads`: of this process's arithmetic on the CPU; 0 leaves it to torch. `deterministic`: from here on
    PyTorch takes only kernels that give the same bits again; it is called before anything is computed.
    """
    import torch

    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # as PyTorch asks for; cuBLAS reads it at its start
        os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"  # torch.compile chooses code without timing it
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    if threads:
        torch.set_num_threads(threads)
    keep_memory(ALL)
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("device is cuda, but torch sees no GPU here; device=auto takes what there is")
    # Where the scheduler shows each task only its own GPU, that one has index 0.
    return torch.device("cuda", place.local_rank % torch.cuda.device_count())


def keep_memory(most: int) -> None:
    """Keep so many freed bytes for the next use: asking the kernel for their pages each time costs a tenth of
    a view, and a fifth of a step on a CPU (benchmarks/LOG.md)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's; other C libraries have rules of their own
        libc.mallopt(M_TRIM_THRESHOLD, most)
        libc.mallopt(M_MMAP_THRESHOLD, MOST_MMAP)


def device_name(device: "torch.device") -> str:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"CPU {processor()}"


def processor() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    return named[1] if named else platform.machine()
