"""The record of a finished run: one small file, published whole and once, and checked when it is read.

A record has a hash of itself, and its id is the hash of its science and data: a damaged or edited record does
not match them. Settings that an earlier code did not know have their birth values, fields of a record the
defaults below.

    python -m pipeline.runs.records migrate results/records --runs runs

brings the records of schema 1, whose ids named every setting, to this one.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.identity import completed, id_of, is_run_id
from pipeline.config.typed import build, listed, typed
from pipeline.errors import UserError, WorkFailed, command
from pipeline.files import flush_directory, partial_name, publish_bytes
from pipeline.runs import answers
from pipeline.runs.usage import Usage
from tnt.untrusted.reading import BadFile, read_json

SCHEMA = 2  # 1: ids named every setting, whether or not it differed from its birth value
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class BadRecord(UserError):
    """A file among the records that is damaged or was edited."""


@dataclass(frozen=True)
class Measures:
    """On the whole validation split."""

    top1: float  # percent
    top5: float  # percent
    loss: float  # cross-entropy, without smoothing
    images: int

    def __post_init__(self) -> None:
        if not 0 <= self.top1 <= self.top5 <= 100 or not self.loss >= 0 or self.images < 1:
            raise BadRecord(f"{self} cannot be: 0 ≤ top1 ≤ top5 ≤ 100, loss ≥ 0, images ≥ 1")


@dataclass(frozen=True)
class RunLayout:
    """How a run was laid out: on the same layout its numbers are the same bits, on another up to rounding."""

    micro_batch: int  # views of a rank at a time
    accumulation: int  # micro-batches of a step
    kernels: str  # fused or torch
    compiled: bool
    deterministic: bool
    threads: int  # of a process's arithmetic on the CPU
    processor: str
    driver: str  # of the GPU; "" here and below where there is none
    cuda: str
    cudnn: str
    packages: str  # SHA-256 of the list of all packages with their versions, which is `packages_path`


@dataclass(frozen=True)
class Record:
    id: str
    science: dict[str, Any]
    fingerprint: str  # of the data: `pipeline.data.dataset.fingerprint`
    scale: str
    seed: int
    ablation: str  # for which table it was asked for; others may use it too
    cell: str
    raw: Measures  # the weights as trained
    ema: Measures | None  # their moving average
    exported: str  # which of both is model.safetensors: "raw" or "ema"
    weights_sha256: str  # of model.safetensors
    params: int
    macs: int | None  # multiply-adds of one image, whole model
    steps: int
    images_per_second: float  # all devices together
    device_hours: float  # of all attempts, with the work that was lost
    device: str
    world: int
    hosts: tuple[str, ...]
    jobs: tuple[str, ...]
    attempts: int
    commit: str
    dirty: bool
    versions: dict[str, str]
    started: str  # UTC, as 2026-01-31T23:59:59Z
    ended: str
    skipped_steps: int = 0  # not finite
    damaged_samples: int = 0  # replaced by others
    events: tuple[str, ...] = ()  # what else went wrong and was put right
    layout: RunLayout | None = None  # None: of schema 1
    raw_fp32: Measures | None = None  # as `raw` and `ema`, measured in fp32; None where those are, or none is
    ema_fp32: Measures | None = None
    answers_sha256: str = ""  # of the answers for each image, `answers.path_of`; "": not kept by earlier code
    first_step: tuple[float, float] | None = None  # loss and gradient norm; None: not kept by earlier code
    until_decided: bool = False  # asked for after a look at the results: the judge must know
    usage: Usage | None = None  # None: not kept by earlier code
    right: str = ""  # for which images the exported weights were right: `answers.from_text`

    def __post_init__(self) -> None:
        if not is_run_id(self.id) or self.id != id_of(self.science, self.fingerprint):
            raise BadRecord(f"id {self.id} is not that of its science; it was edited, or made by other code")
        if (self.scale, self.seed) != (self.science.get("scale"), self.science.get("seed")):
            raise BadRecord("scale and seed are not those of its science")
        if self.exported not in ("raw", "ema") or (self.exported == "ema" and self.ema is None):
            raise BadRecord(f"exported is {self.exported!r}; valid: raw, ema (where there is one)")
        for name in ("started", "ended"):
            if not TIME.fullmatch(getattr(self, name)):
                raise BadRecord(
                    f"{name} is {getattr(self, name)!r}; it must be a time as 2026-01-31T23:59:59Z"
                )
        for name in ("params", "steps", "world", "attempts"):
            if getattr(self, name) < 1:
                raise BadRecord(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("images_per_second", "device_hours", "skipped_steps", "damaged_samples"):
            if not getattr(self, name) >= 0:
                raise BadRecord(f"{name} is {getattr(self, name)}; it must not be negative")
        if self.right and 100 * int(self.right_images().sum()) / self.best.images != self.best.top1:
            raise BadRecord(f"right is not of {self.best.top1} % of {self.best.images} images")

    @property
    def best(self) -> Measures:
        """The measures of the weights that the run left."""
        return self.ema if self.exported == "ema" and self.ema is not None else self.raw

    def right_images(self) -> np.ndarray:
        """bool [images]: for which the weights that the run left were right."""
        try:
            return answers.from_text(self.right, self.best.images)
        except ValueError as error:
            raise BadRecord(f"right cannot be read: {error}") from error


def publish(record: Record, directory: Path | str) -> Path:
    """Write a run's record, whole; a record that exists already is not replaced."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = record_path(directory, record.id)
    partial = partial_name(path)
    values = {"schema": SCHEMA} | listed(dataclasses.asdict(record))
    values["sha256"] = digest(values)
    text = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        publish_bytes(partial, text.encode())
        try:
            os.link(partial, path)  # unlike a rename, it never replaces
        except FileExistsError:
            read(path)  # refuses one that is damaged
    except OSError as error:
        raise WorkFailed(f"the record cannot be written to {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    flush_directory(directory)
    return path


def record_path(directory: Path | str, id: str) -> Path:
    return Path(directory) / f"{id}.json"


def folder_of(id: str, folders: Sequence[Path | str]) -> Path | str:
    """In which a run's record lies; where several have one, the last counts."""
    return next(each for each in reversed(folders) if exists(each, id))


def packages_path(directory: Path | str, layout: RunLayout) -> Path:
    """Beside the records, as one list is that of many runs."""
    return Path(directory) / f"packages-{layout.packages[:12]}.txt"


def exists(directory: Path | str, id: str) -> bool:
    return record_path(directory, id).is_file()


def read(path: Path) -> Record:
    try:
        values = read_json(path, dict)
    except FileNotFoundError:
        raise UserError(f"there is no record at {path}") from None
    except BadFile as error:
        raise BadRecord(str(error)) from error
    if "schema" not in values:
        raise BadRecord(f"{path} is no record")
    if values["schema"] == 1:
        cure = f"python -m pipeline.runs.records migrate {shlex.quote(str(path.parent))}"
        raise BadRecord(f"{path} has schema 1, this code reads {SCHEMA}; {cure}")
    if values["schema"] != SCHEMA:
        raise BadRecord(f"{path} has schema {values['schema']}, this code reads {SCHEMA}; update the code")
    _check_hash(values, path)
    try:
        values["science"] = completed(typed(dict[str, Any], values.get("science"), "science"))
        record = build(Record, values, "")
    except UserError as error:
        raise BadRecord(f"{path}: {error}") from error
    if path.name != f"{record.id}.json":
        raise BadRecord(f"{path} holds the record of {record.id}; a copy under another name does not count")
    return record


def _check_hash(values: dict[str, Any], path: Path) -> None:
    """Take away the file's schema and its hash of itself, and refuse it if the hash is not of the rest."""
    if values.pop("sha256", None) != digest(values):
        raise BadRecord(f"{path} was edited or damaged: it does not match its own sha256; run it again")
    del values["schema"]


def read_all(directory: Path | str) -> tuple[list[Record], list[str]]:
    """The records by id, and a line for each file that is damaged or was edited."""
    records, problems = [], []
    for path in sorted(Path(directory).glob("*.json")):
        try:
            records.append(read(path))
        except UserError as error:
            problems.append(str(error))
    return records, problems


def digest(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def migrate(folder: Path, runs: Path | None = None) -> dict[str, str]:
    """Write each record of schema 1 under its present id; returns the ids, old to new.

    A run that starts from another has that one's id in its own.
    """
    old = {path.stem: values for path in sorted(folder.glob("*.json")) if (values := _schema_1(path))}
    ids: dict[str, str] = {}

    def renamed(id: str) -> str:
        if id in old and id not in ids:
            science = old[id]["science"]
            science["recipe"]["init"] = renamed(science["recipe"]["init"])
            ids[id] = id_of(completed(science), old[id]["fingerprint"])
        return ids.get(id, id)

    for id, values in old.items():
        values |= {"id": renamed(id), "science": completed(values["science"])}
        values["events"] = [*values["events"], f"its id was {id} in schema 1"]
        publish(build(Record, values, ""), folder)
    for id in old:  # now that all are written
        if runs and (runs / id).is_dir():
            (runs / id).rename(runs / ids[id])
        record_path(folder, id).unlink()
    return ids


def _schema_1(path: Path) -> dict[str, Any] | None:
    """What it holds; None for one of another schema."""
    try:
        values = read_json(path, dict)
    except FileNotFoundError as error:
        raise UserError(f"there is no record at {path}") from error
    if values.get("schema") != 1:
        return None
    _check_hash(values, path)
    if path.name != f"{values['id']}.json":
        raise UserError(f"{path} holds the record of {values['id']}; give it that name")
    return values


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.runs.records",
        description="Bring records of schema 1, whose ids named every setting, to the present one.",
    )
    parser.add_argument("action", choices=("migrate",))
    parser.add_argument("records", type=Path, help="the folder of the records")
    parser.add_argument("--runs", type=Path, help="the folder of their runs, which get the new ids too")
    options = parser.parse_args(argv)
    if not options.records.is_dir():
        raise UserError(f"there is no folder {options.records}")
    for old, new in migrate(options.records, options.runs).items():
        print(f"{old} -> {new}")
    return 0


if __name__ == "__main__":
    command(main)
