"""What a finished run leaves: `model.safetensors` with `config.json` in its directory, and its record."""

import re
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.identity import science
from pipeline.files import publish_bytes, sha256
from pipeline.processes.device import device_name, processor
from pipeline.processes.place import find_place
from pipeline.runs import answers, attempts, records
from pipeline.runs.directory import run_directory
from pipeline.runs.log import metrics, spent
from pipeline.runs.provenance import code, packages, packages_hash, versions
from pipeline.runs.records import Record, RunLayout
from pipeline.runs.usage import usage
from pipeline.training import models
from pipeline.training.trainer import Trainer

DRIVER = Path("/proc/driver/nvidia/version")


def complete(
    trainer: Trainer, weights: Mapping[str, Tensor], id: str, fingerprint: str, umask: int
) -> Record:
    """Called by rank 0 at the end of the run. Where it was killed, the next call writes the same files.

    The moving average is exported wherever there is one, even if the raw weights are more accurate: to choose
    by accuracy would be to choose by the validation images. `umask`: the user's.
    """
    config, measured, state = trainer.config, trainer.measured, trainer.state
    kind, exported = ("ema", trainer.ema.state_dict()) if trainer.ema else ("raw", weights)
    models.check_finite(exported)
    directory = run_directory(config, id)
    weights_path = models.export(config, exported, directory, {"id": id, "weights": kind})
    answers_path = answers.path_of(config.paths.records, id)
    if not records.exists(config.paths.records, id):
        answers.publish(trainer.answers, answers_path)
    params, macs, uncounted = models.count(config.model)
    took, starts, made_by = spent(directory), attempts.attempts(directory), code()
    layout, device = run_layout(trainer), device_name(trainer.device)
    record = Record(
        id=id,
        science=science(config),
        fingerprint=fingerprint,
        scale=config.scale,
        seed=config.seed,
        ablation=config.about.ablation,
        cell=config.about.cell,
        until_decided=config.about.until_decided,
        raw=measured["raw"],
        ema=measured.get("ema"),
        raw_fp32=measured.get("raw_fp32"),
        ema_fp32=measured.get("ema_fp32"),
        exported=kind,
        weights_sha256=sha256(weights_path),
        params=params,
        macs=None if uncounted else macs,
        steps=state.step,
        images_per_second=round(took.images_per_second, 2),
        device_hours=round(took.device_hours, 5),
        device=device,
        world=trainer.ranks.world,
        hosts=tuple(sorted({host for start in starts for host in start.hosts})),
        jobs=tuple(dict.fromkeys(start.job for start in starts if start.job)),
        attempts=max(1, took.attempts),
        commit=made_by.commit,
        dirty=made_by.dirty,
        versions=versions(),
        started=_utc(starts[0].time),
        ended=_utc(time.time()),
        skipped_steps=state.skipped,
        damaged_samples=trainer.loader.damaged(),
        events=(*state.events, *attempts.remarks(directory)),
        layout=layout,
        first_step=_first_step(directory),
        answers_sha256=sha256(answers_path),
        right=answers.as_text(answers.right(trainer.answers[kind])),
        usage=usage(config, directory, device, find_place().supervised or 1),
    )
    path = records.publish(record, config.paths.records)
    packages_path = records.packages_path(config.paths.records, layout)
    publish_bytes(packages_path, packages().encode())
    for each in (path, answers_path, packages_path):
        each.chmod(0o666 & ~umask)  # unlike the run's directory, they are meant for others
    return record


def run_layout(trainer: Trainer) -> RunLayout:
    """What the last digits depend on beside the settings."""
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


def _first_step(directory: Path) -> tuple[float, float] | None:
    """Its loss and gradient norm."""
    return next(((row["loss"], row["grad_norm"]) for row in metrics(directory) if row["step"] == 1), None)


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _driver() -> str:
    found = re.search(r"Kernel Module\D*([\d.]+)", DRIVER.read_text() if DRIVER.exists() else "")
    return found[1] if found else "unknown"
