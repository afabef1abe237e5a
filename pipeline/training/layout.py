"""The layout of a run, as its record holds it: what its last digits depend on beside the settings."""

import re
from pathlib import Path

import torch

from pipeline.processes.device import processor
from pipeline.runs.provenance import packages_hash
from pipeline.runs.records import RunLayout
from pipeline.training.trainer import Trainer

DRIVER = Path("/proc/driver/nvidia/version")


def run_layout(trainer: Trainer) -> RunLayout:
    on_gpu = trainer.device.type == "cuda"
    return RunLayout(
        micro_batch=trainer.micro_batch,
        accumulation=trainer.engine.accumulation,
        kernels=trainer.kernels,
        compiled=trainer.config.engine.compile,
        deterministic=torch.are_deterministic_algorithms_enabled(),
        threads=torch.get_num_threads(),
        # One name covers several generations; which instructions torch takes decides the last digits.
        processor=f"{processor()}, {torch.backends.cpu.get_cpu_capability()}",
        driver=_driver() if on_gpu else "",
        cuda=torch.version.cuda or "" if on_gpu else "",
        cudnn=str(torch.backends.cudnn.version()) if on_gpu else "",
        packages=packages_hash(),
    )


def _driver() -> str:
    found = re.search(r"Kernel Module\D*([\d.]+)", DRIVER.read_text() if DRIVER.exists() else "")
    return found[1] if found else "unknown"
