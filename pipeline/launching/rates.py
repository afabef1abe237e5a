"""How many images a second one device trains on: told, measured, or estimated, and how far off that may be.

Measured rates come from the records of finished runs and from calibrations (`calibration.py`). Without one of
the same network on such a device, another network's is scaled; without any, the time of an image is estimated
as its multiply-adds at a share of the device's peak, and the traffic of a TNT's words at its memory's speed.
"""

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from pipeline.config import composition
from pipeline.config.birth import of_others
from pipeline.config.identity import science
from pipeline.config.run import RunConfig
from pipeline.config.science import TIMM, ModelConfig, TimmConfig, kind_of, network_kind
from pipeline.config.typed import build
from pipeline.errors import UserError, command
from pipeline.processes.device import cores, gpus, processor
from pipeline.processes.pace import GPUS, TRAINING, known_gpu
from pipeline.runs.records import Record
from tnt.complexity import counted
from tnt.complexity.formulas import eq18_params, model_macs
from tnt.complexity.pyramid import pyramid_params
from tnt.config import PYRAMID, PyramidConfig, TNTConfig
from tnt.own.files import is_own
from tnt.untrusted.reading import json_of

UNKNOWN_GPU = "A100"  # where a scheduler will choose
# timm's table of training speeds (RTX 3090, automatic mixed precision) has DeiT-S at 1,054 images/s: 0.41 of
# the peak. It has TNT-S at 342, where multiply-adds alone give 907; the rest is WORD_BYTES for each value of
# each word in each block. timm's table of inference (RTX 4090: DeiT-S 8,206, TNT-S 1,730) fits within 1.26.
SHARE = 0.4
WORD_BYTES = 1900
# Multiply-adds a second of a core: 6e9 to 18e9 for the demo's networks (results/records), 40e9 for TNT-S in
# fp32 and 84e9 in bf16 (benchmarks/LOG.md).
CORE = 20e9
# Within which factor of it the true rate is expected, up and down.
TOLD, MEASURED, SCALED, ESTIMATED, ASSUMED, ON_CORES = 1.0, 1.25, 1.5, 2.0, 4.0, 4.0
LAYOUT = ("kernels", "micro_batch", "compile", "grad_checkpointing", "deterministic")
NEUTRAL = ("name", "drop_path", "classes")  # of a network: they change its speed little or not


class NotCounted(UserError):
    """A network cannot be made here, so its size is not known."""


@dataclass(frozen=True)
class Rate:
    images_per_second: float  # of one device
    factor: float  # the true one is expected between this part and this multiple of it
    basis: str
    known: bool = True  # told, or measured on such a device


@dataclass(frozen=True)
class Measurement:
    device: str
    model: dict[str, Any]  # as in a run's science
    precision: str
    images_per_second: float  # of one device
    ended: str  # UTC; of several the newest counts
    source: str
    layout: dict[str, Any] | None  # those settings of the engine that change the rate; None: not known

    @classmethod
    def of(cls, record: Record) -> "Measurement":
        per_device, source = record.images_per_second / record.world, f"run {record.id}"
        chosen = record.science["model"], record.science["precision"]
        return cls(record.device, *chosen, per_device, record.ended, source, layout=None)


def layout(config: RunConfig) -> dict[str, Any]:
    return {name: getattr(config.engine, name) for name in LAYOUT}


def rate(config: RunConfig, device: str, known: Sequence[Measurement], told: float | None = None) -> Rate:
    """`device`: as records name them, "" where a scheduler will choose a GPU."""
    if told:
        return Rate(told, TOLD, "cost.images_per_second, as told")
    model = science(config)["model"]
    comparable = [
        one
        for one in sorted(known, key=lambda one: one.ended, reverse=True)
        if one.precision == config.precision and one.images_per_second
        if (re.search(rf"\b{re.escape(device)}(?!\w)", one.device) if device else not is_cpu(one.device))
    ]
    for one in comparable:
        if bare(one.model) == bare(model) and one.layout in (None, layout(config)):
            return Rate(one.images_per_second, MEASURED, f"measured by {one.source}")
    for one in comparable:
        try:
            times = [_seconds(each, config, one.device)[0] for each in (one.model, model)]
        except NotCounted:
            continue
        return Rate(one.images_per_second * times[0] / times[1], SCALED, f"measured by {one.source}, scaled")
    seconds, factor, basis = _seconds(model, config, device)
    return Rate(1 / seconds, factor, f"estimated: {basis}", known=False)


def size(model: dict[str, Any]) -> tuple[int, int]:
    """Parameters of a network, and the multiply-adds of one image."""
    network = _ours(model)
    if network is None:
        return _counted(model)
    if isinstance(network, PyramidConfig):
        return pyramid_params(network), model_macs(network)
    n, m, c, d = network.patches, network.words, network.c, network.patch_dim
    params = network.depth * eq18_params(m, c, d) + (m * c + network.classes + n + 1) * d
    return params, model_macs(network)


def bare(model: dict[str, Any]) -> dict[str, Any]:
    """Without its name where that is a variant's: two variants may be the same network."""
    left_out = NEUTRAL[1:] if of_others(str(model.get("name", ""))) else NEUTRAL
    return {name: value for name, value in model.items() if name not in left_out}


def is_cpu(device: str) -> bool:
    return device.startswith("CPU")


def local_device(config: RunConfig) -> str:
    """The name that a run's record would give its device here."""
    found = [] if config.engine.device == "cpu" else gpus()
    return found[0] if found else f"CPU {processor()}"


def _seconds(model: dict[str, Any], config: RunConfig, device: str) -> tuple[float, float, str]:
    """Of one image in training, by the estimate; the factor that it may be off, and what it is taken from."""
    network, (_, macs) = _ours(model), size(model)
    if is_cpu(device):
        threads = config.engine.threads or cores()
        basis = f"{CORE / 1e9:g} G multiply-adds/s on each of {threads} cores"
        return TRAINING * macs / (CORE * threads), ON_CORES, basis
    name = known_gpu(device) or UNKNOWN_GPU
    sheet = GPUS[name]
    words = _values_of_words(network) if network else 0
    seconds = TRAINING * 2 * macs / (SHARE * sheet.tflops * 1e12) + WORD_BYTES * words / (sheet.memory * 1e12)
    seconds *= 1 if config.precision == "bf16" else 2
    sure = name in device
    basis = f"{SHARE:.0%} of an {name}'s peak, and its memory's speed" + ("" if sure else " (assumed)")
    return seconds, ESTIMATED if sure else ASSUMED, basis


def _ours(model: dict[str, Any]) -> TNTConfig | PyramidConfig | None:
    """Also of a record of other code, which may lack a field, or have one more."""
    if of_others(str(model.get("name", ""))):
        return None
    kind = PyramidConfig if model.get("form") == PYRAMID else TNTConfig
    known = {field.name for field in dataclasses.fields(kind)} & model.keys()
    return kind(**{name: model[name] for name in known})


def _values_of_words(network: TNTConfig | PyramidConfig) -> int:
    """Of all words of an image, in all blocks that have an inner transformer."""
    if isinstance(network, PyramidConfig):
        return sum(each.with_words * each.edge**2 * network.words * each.c for each in network.stages)
    return network.depth * network.patches * network.words * network.c


def _counted(model: dict[str, Any]) -> tuple[int, int]:
    """Of a network of others: what `tnt/` keeps, else what a process that loads torch has counted once."""
    name, settings = model["name"], {key: model[key] for key in model if key not in ("name", "source")}
    if is_own(name) and _source(name) != model["source"]:
        raise NotCounted(f"the file of {name} is not that which the run was made with")

    as_timm_makes_it = name.startswith(TIMM) and model["classes"] == TimmConfig.classes
    known = counted.of_timm(name.removeprefix(TIMM), model["image_size"]) if as_timm_makes_it else None
    if known:
        return known["params"], known["counted"]

    def count() -> dict[str, int]:
        if find_spec("torch") is None:
            raise NotCounted(f"{name} cannot be counted without torch; action=calibrate measures its speed")
        command = [sys.executable, "-m", __name__, json.dumps({"name": name} | settings)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
        made: dict[str, int] = json_of(done.stdout, "the count", {"params": int, "macs": int})
        return made

    key = json.dumps([version("timm"), model | {"drop_path": 0.0}], sort_keys=True)
    found = composition.kept(f"size-{hashlib.sha256(key.encode()).hexdigest()[:32]}", count)
    return found["params"], found["macs"]


def _source(name: str) -> str:
    """The hash of a network of the user's own, as its files are now."""
    try:
        return kind_of(name).source
    except UserError as error:
        raise NotCounted(str(error)) from error


def main(argv: Sequence[str]) -> int:
    """Count the network whose settings are given, and print what was found."""
    from pipeline.training import models

    settings = json_of(argv[0], "the settings", {"name": str})
    name = settings.pop("name")
    params, macs, _ = models.count(
        ModelConfig(name, build(network_kind({"name": name, **settings}), settings, "model"))
    )
    print(json.dumps({"params": params, "macs": macs}))
    return 0


if __name__ == "__main__":
    command(main)
