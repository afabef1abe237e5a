"""The launches that were given to Slurm: each is noted before it is submitted, and its job afterwards.

    runs/.launches/lock                 held while somebody submits
    runs/.launches/<name>/launch.json   the runs of an array in the order of its tasks; written before sbatch
    runs/.launches/<name>/job           the array's id, once sbatch has said it
    runs/.launches/<name>/*.out         what each rank of each task printed

A job has the name of its launch.
"""

import contextlib
import functools
import json
import os
import re
import secrets
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config.typed import build
from pipeline.errors import UserError
from pipeline.files import locked, partial_name, publish_bytes, umask_for
from tnt.untrusted.reading import read_json, read_text
from tnt.untrusted.writing import storing

FOLDER = ".launches"
LAUNCH, JOB, LOCK = "launch.json", "job", "lock"
NAME = re.compile(r"[A-Za-z0-9_]+-[0-9a-f]{10}")
LOST = "none"  # in the file of the job: Slurm knows no job of that name


@dataclass(frozen=True)
class Launch:
    directory: Path  # its name is that of the job
    runs: tuple[str, ...]  # ids, by the array's index
    calibration: float = 0.0  # seconds that they train to be measured; 0: to their ends
    cluster: str = ""  # its name; "" where an older version of the code noted it
    starts: int = 0  # its jobs may be started so often; 0: without a bound
    code: str = ""  # the copy of the code that they run
    pack: int = 1  # runs of each of its jobs
    partition: str = ""  # in which they are; "" where the site or the scheduler chooses

    @classmethod
    def begin(cls, runs_directory: Path, runs: Iterable[str], title: str = "tnt", **about: Any) -> "Launch":
        """`title`: what the job's name begins with, letters that `squeue` shows; `about`: other fields."""
        directory = runs_directory / FOLDER / f"{title}-{secrets.token_hex(5)}"
        directory.mkdir(parents=True, mode=0o777 & ~umask_for(runs_directory))
        launch = cls(directory, tuple(runs), **about)
        said = {name: value for name, value in asdict(launch).items() if name != "directory"}
        publish_bytes(directory / LAUNCH, (json.dumps(said) + "\n").encode())
        return launch

    @property
    def job(self) -> str | None:
        """Of the array; None before sbatch has answered, "" where nothing came of it."""
        path = self.directory / JOB
        said = read_text(path).strip() if path.exists() else None
        return "" if said == LOST else said

    def settle(self, job: str) -> str | None:
        """Note its job unless one is noted already; returns the noted one.

        The submitter, a later launch, and the job itself may call this. The first one decides; a job that is
        not the noted one does not run.
        """
        path = self.directory / JOB
        partial = partial_name(path)
        with storing(path):
            partial.write_text(f"{job}\n")
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
        partial.unlink()
        return self.job

    def task(self, id: str) -> str:
        """The job of one of its runs."""
        return f"{self.job}_{self.runs.index(id) // self.pack}" if self.job else ""

    def runs_of(self, task: int) -> tuple[str, ...]:
        return self.runs[task * self.pack : (task + 1) * self.pack]


@contextmanager
def submitting(runs: Path) -> Iterator[None]:
    """Allow one submission at a time, on all machines that share the directory."""
    folder = runs / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o777 & ~umask_for(runs))
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}) → paths.runs says where else") from error
    said = "another launch is submitting; waiting for it"
    with locked(folder / LOCK, waiting=lambda: print(said, file=sys.stderr)):
        yield


def read(directory: Path) -> Launch:
    if not NAME.fullmatch(directory.name):
        raise UserError(f"{directory} is no launch: a copy, or a renamed one, does not count")
    try:
        said = read_json(directory / LAUNCH, {"runs": [str]})
        return build(Launch, said, "launch", directory=directory)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{directory} is no launch: {error}") from error


def read_all(runs: Path) -> list[Launch]:
    """All launches, the oldest first; what is none is named once and passed over."""
    found = []
    for path in sorted((runs / FOLDER).glob(f"*/{LAUNCH}"), key=os.path.getmtime):
        try:
            found.append(read(path.parent))
        except UserError as error:
            _warn(f"{error}; it is passed over")
    return found


@functools.cache
def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def beside(runs: Path, ids: Collection[str]) -> list[str]:
    """A line for each other run of the jobs that train these."""
    packs = [
        launch.runs_of(launch.runs.index(id) // launch.pack)
        for launch in read_all(runs)
        for id in ids
        if id in launch.runs
    ]
    others = sorted({id for pack in packs for id in pack} - set(ids))
    return [f"run {id} shares a job with these and ends too; launched again, it goes on" for id in others]


def outputs(runs: Path, id: str) -> list[Path]:
    """What the ranks of a run have printed as jobs, the newest job's last."""
    found: list[Path] = []
    for launch in read_all(runs):
        if id in launch.runs and launch.job:
            found += sorted(launch.directory.glob(f"{launch.task(id)}_*.out"))
    return found
