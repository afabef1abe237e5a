"""Measures how many images a second a run trains on, by training for a minute; plans count by it.

launch.py action=calibrate starts it: python -m pipeline.launching.calibration <seconds> --config <file>

    runs/.calibrations/<key>/rate-….json   on one kind of device; the key is a hash of the kind of run
    runs/.calibrations/<key>/output.log    what the processes printed, where they ran on this machine

Nothing of the training is kept, and the run that it is a copy of is not touched.
"""

import dataclasses
import hashlib
import json
import re
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import run as configs
from pipeline.config.identity import science
from pipeline.config.machine import Paths
from pipeline.config.run import RunConfig
from pipeline.config.typed import build
from pipeline.data import dataset
from pipeline.errors import UserError, WorkFailed, command
from pipeline.files import publish_bytes
from pipeline.launching import local
from pipeline.launching.plan import PlannedRun
from pipeline.launching.rates import Measurement, bare, layout
from pipeline.processes.device import device_name, find_device
from pipeline.processes.interrupt import Interrupt
from pipeline.processes.place import find_place
from pipeline.processes.ranks import joined
from pipeline.runs.directory import OUTPUT, run_directory
from pipeline.runs.log import printed_error, tail
from tnt.untrusted.reading import number, read_json

if TYPE_CHECKING:
    from pipeline.training.trainer import Trainer

FOLDER = ".calibrations"  # among the runs
LIMIT = 20  # minutes of a job, beside those of the measurement: imports, and the first step


def copies(runs: Sequence[PlannedRun], seconds: float) -> list[PlannedRun]:
    """A copy for each kind of run among these: of several that train at the same rate, one."""
    found: dict[str, PlannedRun] = {}
    for run in runs:
        folder = Path(run.config.paths.runs).absolute() / FOLDER
        config = dataclasses.replace(
            run.config,
            recipe=dataclasses.replace(run.config.recipe, init=""),
            paths=dataclasses.replace(run.config.paths, runs=str(folder), records=str(folder / "records")),
            cluster=dataclasses.replace(run.config.cluster, pack=1, time=str(LIMIT + round(seconds / 60))),
        )
        found.setdefault(_key(config), PlannedRun(config, _key(config), run.labels))
    return list(found.values())


def run_here(runs: Sequence[PlannedRun], seconds: float) -> None:
    """One after another on this machine, each as its run would be started."""
    for run in runs:
        print(f"{local.name(run)}: training for {seconds:g} s, and its start", file=sys.stderr, flush=True)
        program = ("-m", "pipeline.launching.calibration", str(seconds))
        child = local.start(run, local.capacity(run.config), 0, program)
        try:
            status = child.process.wait()
        finally:
            child.send(signal.SIGTERM)
        output = run.directory / OUTPUT
        if status:
            raise WorkFailed(f"{local.name(run)}: {printed_error(run.directory)}; see {output}")
        print(*tail(output, 1))


def measurements(paths: Paths) -> list[Measurement]:
    found = []
    for path in (Path(paths.runs) / FOLDER).glob("*/rate-*.json"):
        try:
            found.append(build(Measurement, read_json(path, dict), ""))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); remove it") from error
    return found


def measure(config: RunConfig, seconds: float) -> None:
    """Train for so long after the first step, on all ranks; rank 0 notes the rate."""
    with Interrupt() as interrupt:
        place = find_place()
        dataset.prepare(config.data)
        engine = config.engine
        device = find_device(engine.device, place, engine.threads, engine.deterministic)
        with joined(place, device, config.cluster.start_timeout) as ranks:
            from pipeline.training.trainer import Trainer

            with Trainer(config, ranks, device) as trainer:
                trainer.choose_kernels()
                steps, took = _train(trainer, interrupt, seconds)
        if not steps:
            raise WorkFailed("it was ended before its second step; nothing was measured")
        rate = steps * config.recipe.global_batch / took / ranks.world
        if not ranks.rank:
            devices = "1 device" if ranks.world == 1 else f"{ranks.world} devices"
            _note(config, rate, device_name(device), f"{devices} for {took:.0f} s")


def _train(trainer: "Trainer", interrupt: Interrupt, seconds: float) -> tuple[int, float]:
    """The steps after the first, which also starts workers and compiles, and the seconds that they took."""
    began, steps, took = time.monotonic(), -1, 0.0
    while trainer.epoch < trainer.config.recipe.epochs:
        for done in trainer.steps_of_epoch(interrupt):
            steps += 1
            began = began if steps else time.monotonic()
            took = time.monotonic() - began
            ranks = trainer.ranks
            enough = ranks.sum([ranks.rank == 0 and steps > 0 and took >= seconds])[0]
            if enough or done.asked_to_end:
                return steps, took
    return steps, took


def _note(config: RunConfig, rate: float, device: str, how: str) -> None:
    ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    source = f"a calibration of {ended[:10]} on {socket.gethostname()}, {how}"
    model = science(config)["model"]
    found = Measurement(device, model, config.precision, round(rate, 2), ended, source, layout(config))
    name = f"rate-{re.sub('[^A-Za-z0-9]+', '-', device)}.json"
    path = run_directory(config, _key(config)) / name
    publish_bytes(path, (json.dumps(dataclasses.asdict(found), indent=1) + "\n").encode())
    print(f"{rate:,.1f} images/s on each {device}, {how}; noted in {path}")


def _key(config: RunConfig) -> str:
    """The kind of a run: what decides its rate, but for the device."""
    kind = [bare(science(config)["model"]), config.precision, layout(config), config.data.name]
    return hashlib.sha256(json.dumps(kind, sort_keys=True).encode()).hexdigest()[:12]


def main(argv: Sequence[str]) -> int:
    seconds, _, path = argv
    measure(configs.read(Path(path)), number(seconds, 0, 1e9, "seconds"))
    return 0


if __name__ == "__main__":
    command(main)
