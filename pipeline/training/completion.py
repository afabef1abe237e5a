"""What a finished run leaves: `model.safetensors` with `config.json` in its directory, and its record."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config.identity import science
from pipeline.config.run import RunConfig
from pipeline.files import sha256
from pipeline.runs import records
from pipeline.runs.directory import run_directory
from pipeline.runs.log import spent
from pipeline.runs.provenance import Code, versions
from pipeline.runs.records import Measures, Record
from pipeline.training import models
from tnt.complexity.count import count_macs
from tnt.complexity.formulas import model_macs
from tnt.config import TNTConfig


@dataclass(frozen=True)
class Facts:
    """What only the trainer knows."""

    steps: int
    started: float  # seconds since the epoch, of the first attempt
    code: Code  # as it was at the start of this attempt
    device: str
    world: int
    hosts: tuple[str, ...]
    jobs: tuple[str, ...] = ()
    skipped_steps: int = 0
    damaged_samples: int = 0
    events: tuple[str, ...] = ()


def complete(
    config: RunConfig,
    id: str,
    fingerprint: str,
    facts: Facts,
    *,
    weights: Mapping[str, Tensor],
    raw: Measures,
    average: Mapping[str, Tensor] | None = None,
    ema: Measures | None = None,
) -> Record:
    """Rank 0's last act; killed within it and done again, it leaves the same.

    Where a moving average was kept it is what is exported, better or not: a choice by accuracy would be a
    choice by the validation images.
    """
    assert (average is None) == (ema is None), "an average comes with its measures"
    exported = weights if average is None else average
    models.check_finite(exported)
    directory = run_directory(config, id)
    path = models.export(config, exported, directory, {"id": id, "weights": "raw" if ema is None else "ema"})
    took = spent(directory)
    record = Record(
        id=id,
        science=science(config),
        fingerprint=fingerprint,
        scale=config.scale,
        seed=config.seed,
        ablation=config.about.ablation,
        cell=config.about.cell,
        raw=raw,
        ema=ema,
        exported="raw" if ema is None else "ema",
        weights_sha256=sha256(path),
        params=_params(config),
        macs=_macs(config),
        steps=facts.steps,
        images_per_second=round(took.images_per_second, 2),
        device_hours=round(took.device_hours, 5),
        device=facts.device,
        world=facts.world,
        hosts=facts.hosts,
        jobs=facts.jobs,
        attempts=max(1, took.attempts),
        commit=facts.code.commit,
        dirty=facts.code.dirty,
        versions=versions(),
        started=_utc(facts.started),
        ended=_utc(time.time()),
        skipped_steps=facts.skipped_steps,
        damaged_samples=facts.damaged_samples,
        events=facts.events,
    )
    records.publish(record, config.paths.records)
    return record


def _params(config: RunConfig) -> int:
    with torch.device("meta"):
        return models.count_parameters(models.create(config.model))


def _macs(config: RunConfig) -> int | None:
    network = config.model.network
    if isinstance(network, TNTConfig):
        return model_macs(network)
    with torch.device("meta"):
        model = models.create(config.model)
    count = count_macs(model, 3, network.image_size)
    return None if count.uncounted else count.matrix


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
