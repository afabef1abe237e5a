"""What runs will take: images, device-hours, wall time and disk; within which factor, and why so."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.identity import science
from pipeline.config.run import RunConfig
from pipeline.config.science import sampling
from pipeline.data import dataset
from pipeline.data.loading.sampler import steps_per_epoch
from pipeline.data.packing.sources.source import TABLE_2
from pipeline.data.shards.manifest import manifest_path
from pipeline.errors import UserError
from pipeline.launching import calibration
from pipeline.launching.plan import PlannedRun
from pipeline.launching.rates import UNKNOWN_GPU, Measurement, NotCounted, local_device, rate, size
from pipeline.launching.slurm import resources
from pipeline.launching.status import RunStatus
from pipeline.processes.pace import TRAINING
from pipeline.runs import records
from pipeline.runs.usage import energy
from tnt.untrusted.reading import BadFile, read_json

STATE = 16  # bytes a parameter in a checkpoint: weights, their average, two moments


@dataclass(frozen=True)
class Cost:
    images: int | None  # views trained on and, as a third of one each, images measured on; None: no data
    device_hours: float | None
    seconds: float | None  # on `devices` of them
    devices: int
    disk: int  # bytes at most
    factor: float  # hours and seconds are expected between this part and this multiple of what is said
    share: int  # so many runs share each of the devices, and the time
    known: bool  # from a rate that was told, or measured on such a device
    basis: str
    kwh: float | None = None  # by the power on a data sheet
    money: float | None = None  # at cluster.per_gpu_hour

    @property
    def hours(self) -> tuple[float, float] | None:
        """The least and the most device-hours that are expected."""
        found = self.device_hours
        return None if found is None else (found / self.factor, found * self.factor)


DONE = Cost(0, 0.0, 0.0, 0, 0, 1.0, 1, known=True, basis="done")


def cost(
    run: PlannedRun,
    known: Sequence[Measurement],
    device: str,
    devices: int,
    told: float | None = None,
    share: int = 1,
) -> Cost:
    """`device`: as records name them, "" where a scheduler will choose a GPU; `told`: images/s of one."""
    config = run.config
    try:
        images, found = work(config), rate(config, device, known, told)
        params, _ = size(science(config)["model"])
    except NotCounted as error:
        return Cost(None, None, None, devices, 0, 1.0, share, False, str(error))
    kept = config.engine.keep + config.engine.keep_for_audit
    disk = params * (STATE * (kept + 2) + 8)  # the kept, the best, the next; the weights
    if images is None:
        why = "the size of its data is not known"
        return Cost(None, None, None, devices, disk, found.factor, share, found.known, why)
    hours = images / found.images_per_second / 3600
    return Cost(
        images,
        hours,
        3600 * hours / devices * share,
        devices,
        disk,
        found.factor,
        share,
        found.known,
        found.basis,
        energy(hours, device or UNKNOWN_GPU)[0],
        hours * config.cluster.per_gpu_hour or None,
    )


def costs_of(
    found: Sequence[RunStatus], slurm: bool, told: float | None = None, kind: str = ""
) -> list[Cost]:
    """The cost of each run, on GPUs of a kind if one is given; nothing for one that is done."""
    known: list[Measurement] = []
    for paths in dict.fromkeys(at.run.config.paths for at in found):
        recorded, problems = records.read_all(paths.records)
        print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
        known += [*map(Measurement.of, recorded), *calibration.measurements(paths)]
    costs = []
    for at in found:
        config = at.run.config
        devices = resources.allocation(config).world if slurm else config.cluster.gpus or 1
        device = kind if slurm and resources.on_gpus(config) else local_device(config)
        share = config.cluster.pack if slurm and resources.on_gpus(config) else 1
        costs.append(DONE if at.state == "done" else cost(at.run, known, device, devices, told, share))
    return costs


def check_budget(most: float | None, costs: Sequence[Cost]) -> None:
    """Refuse runs that may take more device-hours, and runs whose rate is not known but estimated."""
    hours = [one.hours for one in costs]
    if most is None:
        return
    if None in hours:
        raise UserError("max_gpu_hours: what some of these runs take is not known; action=plan says of which")
    for one in costs:
        if not one.known:
            raise UserError(
                f"max_gpu_hours: nothing was measured on such a device ({one.basis}); action=calibrate "
                "measures it in a minute, cost.images_per_second=N says it; nothing was started"
            )
    total = sum(high for _, high in filter(None, hours))
    if total > most:
        raise UserError(
            f"these runs may take {total:.3g} GPU-hours, above max_gpu_hours={most:g}; nothing was started"
        )


def work(config: RunConfig) -> int | None:
    """The whole run, in images trained on."""
    held, measured = (_samples(config, split) for split in (config.data.train, config.data.validation))
    if held is None:
        return None
    recipe = config.recipe
    steps = steps_per_epoch(held, sampling(config.data, recipe, config.seed))
    evaluations = -(-recipe.epochs // recipe.evaluate_every) * (2 if recipe.ema else 1)
    return recipe.epochs * steps * recipe.global_batch + evaluations * (measured or 0) // TRAINING


def _samples(config: RunConfig, split: str) -> int | None:
    try:
        path = manifest_path(Path(config.data.root), split)
        return int(read_json(path, {"samples": int})["samples"])
    except (FileNotFoundError, BadFile):
        if (made := dataset.to_be_made(config.data)) is not None:
            return made.samples.get(split)
        published = TABLE_2.get(config.data.name)
        return published.samples.get(split) if published else None
