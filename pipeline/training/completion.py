"""What a finished run leaves: `model.safetensors` with `config.json` in its directory, and its record."""

import time
from collections.abc import Mapping

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


def complete(
    config: RunConfig,
    id: str,
    fingerprint: str,
    *,
    weights: Mapping[str, Tensor],
    raw: Measures,
    average: Mapping[str, Tensor] | None = None,
    ema: Measures | None = None,
    steps: int,
    started: float,
    code: Code,
    device: str,
    world: int,
    hosts: tuple[str, ...],
    jobs: tuple[str, ...] = (),
    skipped_steps: int = 0,
    damaged_samples: int = 0,
    events: tuple[str, ...] = (),
) -> Record:
    """Called by rank 0 at the end of the run. Where it was killed, the next call writes the same files.

    The moving average is exported wherever there is one, even if the raw weights are more accurate: to choose
    by accuracy would be to choose by the validation images. `started` is the time of the first attempt, in
    seconds since the epoch.
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
        steps=steps,
        images_per_second=round(took.images_per_second, 2),
        device_hours=round(took.device_hours, 5),
        device=device,
        world=world,
        hosts=hosts,
        jobs=jobs,
        attempts=max(1, took.attempts),
        commit=code.commit,
        dirty=code.dirty,
        versions=versions(),
        started=_utc(started),
        ended=_utc(time.time()),
        skipped_steps=skipped_steps,
        damaged_samples=damaged_samples,
        events=events,
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
