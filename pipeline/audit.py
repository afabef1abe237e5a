"""Replay a part of a finished run, and compare each step with what the run said of it.

    python pipeline/audit.py run=<id>
    torchrun --nproc-per-node 8 pipeline/audit.py run=<id>     in the layout of a run on 8 devices

The part lies between two checkpoints that the run kept, taken at random; engine.keep_for_audit=10 lets a run
keep ten, evenly spaced. Settings, data and commit are those of the record. In the run's layout loss and
gradient norm must be the same to the last digit, in another one within rounding. What was found is added to
results/audits/<id>.json, and the report shows it.
"""

import getpass
import math
import os
import random
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import pipeline  # noqa: F401
except ModuleNotFoundError:
    sys.exit("error: not installed for this Python; `make demo` installs into .venv: activate that")

from pipeline.config import run as configs
from pipeline.config.identity import is_run_id, science
from pipeline.config.overrides import from_command_line
from pipeline.config.run import RunConfig
from pipeline.data import dataset
from pipeline.errors import UserError, WorkFailed, command, counted
from pipeline.files import sha256
from pipeline.processes.device import device_name, find_device
from pipeline.processes.interrupt import Interrupt
from pipeline.processes.place import find_place
from pipeline.processes.ranks import Ranks, joined
from pipeline.runs import audits, log, records
from pipeline.runs.audits import Audit
from pipeline.runs.checkpoints import STATE, Checkpoint, name_of, problem_with, published
from pipeline.runs.directory import CHECKPOINTS, CONFIG, run_directory
from pipeline.runs.provenance import code
from pipeline.runs.records import Record
from tnt.untrusted.reading import read_json

if TYPE_CHECKING:
    import torch

# What is compared, and by how much it may differ in another layout, relative: four or five times what a small
# network shows in bf16 within 27 steps. A learning rate larger by 10 % moves its loss by 0.0045 within 8.
ROUNDING = {"loss": 0.001, "grad_norm": 0.05}


def main(argv: Sequence[str]) -> int:
    own = [text.removeprefix("run=") for text in argv if text.startswith("run=")]
    others = [text for text in argv if not text.startswith("run=")]
    asked = from_command_line(others, __doc__ or "")
    if asked is None:
        return 0
    if len(own) != 1:
        raise UserError("say which run, as run=<id>")
    record, config = _of_run(own[0], others, asked)
    place, engine = find_place(), config.engine
    device = find_device(engine.device, place, engine.threads, engine.deterministic)
    with joined(place, device, config.cluster.start_timeout) as ranks:
        path = audits.path_of(config.paths.records, record.id)
        ranks.lead(lambda: audits.read(path))  # one that was edited is refused now, not after the work
        first, last = ranks.lead(lambda: _interval(run_directory(config, record.id) / CHECKPOINTS))
        found = audit(config, record, first, last, ranks, device)
        if ranks.rank == 0:
            audits.add(path, found)
            print(f"run {record.id}: {found}; {path}")
    if found.fault:
        raise WorkFailed(f"run {record.id} is not what its record says")
    return 0


def audit(
    config: RunConfig, record: Record, first: Checkpoint, last: int, ranks: Ranks, device: "torch.device"
) -> Audit:
    replayed, same = _replay(config, record, first, last, ranks, device)
    directory = run_directory(config, record.id)
    said, kept = _said(directory), _said(directory / CHECKPOINTS / name_of(last))
    shared = [step for step in replayed if step in said]
    gaps = {
        name: {step: _gap(replayed[step][name], said[step][name]) for step in shared} for name in ROUNDING
    }
    evaluations = [row for row in log.metrics(directory) if "evaluated" in row]
    measured = {"top1": record.raw.top1} | ({"ema_top1": record.ema.top1} if record.ema else {})
    faults = [
        f"the record's {name} is not that of metrics.jsonl"
        for name, value in measured.items()
        if not evaluations or evaluations[-1].get(name) != value
    ]
    if not shared or any(said.get(step) != row for step, row in kept.items()):
        faults.append(f"metrics.jsonl is not as the checkpoint of step {last} holds it")
    faults += [
        f"{name} of step {step} is off by {gap:.2g}"
        for name, each in gaps.items()
        for step, gap in each.items()
        if gap > (0 if same else ROUNDING[name])
    ]
    made_by = code()
    return Audit(
        record_sha256=sha256(records.record_path(config.paths.records, record.id)),
        after=first.step,
        up_to=last,
        compared=len(shared),
        same_layout=same,
        loss_gap=max(gaps["loss"].values(), default=0.0),
        grad_norm_gap=max(gaps["grad_norm"].values(), default=0.0),
        fault=next(iter(faults), ""),
        by=_user(),
        host=socket.gethostname(),
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        commit=made_by.commit,
        dirty=made_by.dirty,
    )


def _of_run(id: str, others: Sequence[str], asked: RunConfig) -> tuple[Record, RunConfig]:
    """Its record, and its config with the machine's settings that the command line names."""
    if not is_run_id(id) or not run_directory(asked, id).is_dir():
        raise UserError(
            f"run={id}: there is no such run in {asked.paths.runs} (paths.runs says where to look)"
        )
    record = records.read(records.record_path(asked.paths.records, id))
    values = configs.plain(configs.read(run_directory(asked, id) / CONFIG))
    configs.take(values, configs.plain(asked), ["paths", *(text.partition("=")[0] for text in others)])
    values["logging"]["every"] = 1
    config = configs.from_plain(values)
    if science(config) != record.science:
        raise UserError(f"run={id}: the settings are not those of its record; leave out what changes numbers")
    dataset.prepare(config.data)
    if dataset.fingerprint(config.data) != record.fingerprint:
        raise UserError(f"run={id}: the data are not those of its record; data.root says where those lie")
    if code().commit != record.commit:
        raise UserError(f"run={id} was made by other code: git checkout {record.commit}")
    return record, config


def _interval(root: Path) -> tuple[Checkpoint, int]:
    """A checkpoint, and the step of the next one; every step is as likely to be among those between."""
    steps = sorted(step for step, path in published(root) if not problem_with(path))
    if len(steps) < 2:
        raise UserError(
            f"{root} holds {counted(len(steps), 'sound checkpoint')}; a replay goes from one to the next: "
            "train with engine.keep_for_audit=10"
        )
    parts = list(pairwise(steps))
    [(first, last)] = random.SystemRandom().choices(parts, [last - first for first, last in parts])
    path = root / name_of(first)
    return Checkpoint(first, path, read_json(path / STATE, dict)), last


def _replay(
    config: RunConfig, record: Record, first: Checkpoint, last: int, ranks: Ranks, device: "torch.device"
) -> tuple[dict[int, Mapping[str, float]], bool]:
    """Loss and gradient norm of each step, and whether the layout is the run's."""
    from pipeline.training.completion import run_layout
    from pipeline.training.trainer import Trainer

    found: dict[int, Mapping[str, float]] = {}
    with Trainer(config, ranks, device) as trainer:
        trainer.load(first)
        trainer.choose_kernels(first.state["kernels"])
        layout = (run_layout(trainer), trainer.engine.layout(), ranks.world, device_name(device))
        same = layout == (record.layout, first.state["layout"], record.world, record.device)
        while trainer.state.step < last:
            for done in trainer.steps_of_epoch(Interrupt()):
                assert done.values is not None, "a line for each step"
                found[trainer.state.step] = done.values
                if trainer.state.step == last:
                    break
    return found, same


def _said(directory: Path) -> dict[int, dict[str, Any]]:
    """What metrics.jsonl says of each step, in a run's directory or in a checkpoint."""
    return {row["step"]: row for row in log.metrics(directory) if row.keys() >= ROUNDING.keys()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may know the number alone
        return f"user {os.getuid()}"


def _gap(mine: float, said: float | None) -> float:
    """Relative; 0 where both are not finite, which metrics.jsonl writes as null."""
    if said is None or not math.isfinite(mine):
        return float(said is not None or math.isfinite(mine))
    return abs(mine - said) / max(abs(mine), abs(said), sys.float_info.min)


if __name__ == "__main__":
    command(main)
