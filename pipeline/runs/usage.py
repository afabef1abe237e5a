"""What a run took: hours of devices, energy and money, and how each is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.run import RunConfig
from pipeline.processes import accounting
from pipeline.processes.pace import GPUS, known_gpu
from pipeline.runs.attempts import attempts
from pipeline.runs.log import spent

PATIENCE = 20.0  # seconds for the accounting's answer


@dataclass(frozen=True)
class Usage:
    gpu_hours: float  # of a run's share of its jobs; without GPUs, hours of its processes
    hours_by: str  # Slurm: all that was allocated; steps: from each first step to the last line
    requested_hours: float | None = None  # at a stretch, and `hours` of all stretches
    hours: float | None = None
    memory_gb: float | None = None  # of the largest task
    requested_memory_gb: float | None = None  # of all nodes
    kwh: float | None = None
    energy_by: str = ""  # NVML, Slurm, or a data sheet
    cost: float | None = None  # at cluster.per_gpu_hour


def usage(config: RunConfig, directory: Path, device: str, sharing: int) -> Usage:
    """Of all attempts so far; `sharing`: how many runs share a job."""
    took = spent(directory)
    jobs = {one.job for one in attempts(directory) if one.job}
    known = list(accounting.ask(jobs, PATIENCE).values())
    known = known if len(known) == len(jobs) else []
    return told(config, known, took.device_hours, took.joules, device, sharing)


def told(
    config: RunConfig,
    jobs: Sequence[accounting.AccountedJob],
    device_hours: float = 0.0,
    joules: float = 0.0,
    device: str = "",
    sharing: int = 1,
) -> Usage:
    """`jobs`: what the accounting says of all of them, or nothing."""
    charged = sum(job.gpu_hours for job in jobs) / sharing
    hours = charged or device_hours
    kwh, energy_by = energy(hours, device)
    if slurms := sum(job.joules for job in jobs) / sharing:
        kwh, energy_by = slurms / 3.6e6, "Slurm"
    if joules:
        kwh, energy_by = joules / 3.6e6 / sharing, "NVML"
    price = config.cluster.per_gpu_hour
    return Usage(
        gpu_hours=round(hours, 5),
        hours_by="Slurm" if charged else "steps",
        requested_hours=max((job.limit for job in jobs), default=0) / 3600 or None,
        hours=round(sum(job.seconds for job in jobs) / 3600, 5) or None,
        memory_gb=round(max((job.memory for job in jobs), default=0) / 1e9, 3) or None,
        requested_memory_gb=round(max((job.allowed for job in jobs), default=0) / 1e9, 3) or None,
        kwh=None if kwh is None else round(kwh, 6),
        energy_by=energy_by,
        cost=round(hours * price, 4) if price else None,
    )


def energy(hours: float, device: str) -> tuple[float | None, str]:
    """By the power that a data sheet has for the device: more than is drawn."""
    name = known_gpu(device)
    return (hours * GPUS[name].watts / 1000, f"data sheet of {name}") if name else (None, "")
