"""Estimates what a run will take: images, device-hours, wall time and disk, and on what the estimate rests.

Measured where anything was: the same network at the same image size on such a device, else another network
there, scaled by multiply-adds; else multiply-adds at a share of what the device could do.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.identity import science
from pipeline.config.run import RunConfig
from pipeline.config.science import sampling
from pipeline.data.loading.sampler import steps_per_epoch
from pipeline.data.packing.sources.source import TABLE_2
from pipeline.data.shards.manifest import manifest_path
from pipeline.launching.plan import PlannedRun
from pipeline.processes.device import cores, gpus, processor
from pipeline.runs.records import Record
from tnt.complexity.formulas import eq18_params, model_macs
from tnt.config import TNTConfig

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

TRAINING = 3  # times the multiply-adds of a forward pass: as many again for each of two gradients
FIELDS = ("drop_path", "classes")  # of a network, that change its speed little
STATE = 16  # bytes a parameter in a checkpoint: weights, their average, two moments


@dataclass(frozen=True)
class Cost:
    images: int | None  # views trained on and, as a third of one each, images measured on; None: no data
    device_hours: float | None
    seconds: float | None  # on `devices` of them
    devices: int
    disk: int | None  # bytes at most
    basis: str

    @classmethod
    def none(cls, why: str) -> "Cost":
        return cls(0, 0.0, 0.0, 0, 0, why)


def cost(run: PlannedRun, known: Sequence[Record], device: str, devices: int) -> Cost:
    """`device`: as records name them, "" where a scheduler will choose a GPU."""
    images, disk = work(run.config), _disk(run.config)
    rate, basis = images_per_second(run.config, known, device)
    if images is None or rate is None:
        return Cost(images, None, None, devices, disk, "the size of its data is not known" if rate else basis)
    seconds = images / rate
    return Cost(images, seconds / 3600, seconds / devices, devices, disk, basis)


def images_per_second(config: RunConfig, known: Sequence[Record], device: str) -> tuple[float | None, str]:
    """Of one device in training, and what that is known from."""
    mine, macs = _network(science(config)["model"]), _macs(config)
    comparable = [record for record in known if record.images_per_second and _alike(record.device, device)]
    newest = sorted(comparable, key=lambda record: record.ended, reverse=True)
    for record in newest:
        if _network(record.science["model"]) == mine and record.science["precision"] == config.precision:
            return record.images_per_second / record.world, f"measured by run {record.id}"
    for record in newest:
        if record.macs and macs and record.science["precision"] == config.precision:
            rate = record.images_per_second / record.world * record.macs / macs
            return rate, f"measured by run {record.id}, scaled by multiply-adds"
    if macs is None:
        return None, f"nothing is known of {config.model.name} before a run of it has ended"
    available, basis = macs_per_second(device, config)
    return available / (TRAINING * macs), f"estimated: {basis}"


def work(config: RunConfig) -> int | None:
    """The whole run, in images trained on."""
    held, measured = (_samples(config, split) for split in (config.data.train, config.data.validation))
    if held is None:
        return None
    recipe = config.recipe
    views = (
        recipe.epochs
        * steps_per_epoch(held, sampling(config.data, recipe, config.seed))
        * recipe.global_batch
    )
    evaluations = -(-recipe.epochs // recipe.evaluate_every) * (2 if recipe.ema else 1)
    return views + evaluations * (measured or 0) // TRAINING


def _samples(config: RunConfig, split: str) -> int | None:
    try:
        return int(json.loads(manifest_path(Path(config.data.root), split).read_bytes())["samples"])
    except (OSError, ValueError, KeyError, TypeError):
        published = TABLE_2.get(config.data.name)
        return published.samples.get(split) if published else None


def _macs(config: RunConfig) -> int | None:
    network = config.model.network
    return model_macs(network) if isinstance(network, TNTConfig) else None


def _network(model: dict[str, Any]) -> dict[str, Any]:
    """Without its name: two variants may be the same network."""
    named = {"name": model["name"]} if "depth" not in model else {}
    return named | {name: value for name, value in model.items() if name not in ("name", *FIELDS)}


def _alike(measured: str, device: str) -> bool:
    return measured == device if device else not is_cpu(measured)


def _disk(config: RunConfig) -> int | None:
    network = config.model.network
    if not isinstance(network, TNTConfig):
        return None
    n, m, c, d = network.patches, network.words, network.c, network.patch_dim
    params = network.depth * eq18_params(m, c, d) + (m * c + network.classes + n + 1) * d
    return params * (
        STATE * (config.engine.keep + 2) + 8
    )  # the kept, the best, the next; the weights in the end


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


def local_device(config: RunConfig) -> str:
    """The name that a run's record would give its device here."""
    found = [] if config.engine.device == "cpu" else gpus()
    return found[0] if found else f"CPU {processor()}"
