"""The launches that were given to Slurm: each is noted before it is submitted, and its job afterwards.

    runs/.launches/lock                 held while somebody submits
    runs/.launches/<name>/launch.json   the runs of an array in the order of its tasks; written before sbatch
    runs/.launches/<name>/job           the array's id, once sbatch has said it
    runs/.launches/<name>/*.out         what each rank of each task printed

A job has the name of its launch. For a launch without a job, Slurm is asked for a job of that name, so that
nothing is submitted twice after a submitter was killed in between, or sbatch submitted but could not answer.
"""

import contextlib
import json
import os
import re
import secrets
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import locked, partial_name, publish_bytes
from pipeline.launching.slurm import commands
from pipeline.launching.slurm.commands import Job
from pipeline.runs.attempts import attempts
from tnt.untrusted.reading import read_json, read_text

FOLDER = ".launches"
LAUNCH, JOB, LOCK = "launch.json", "job", "lock"
NAME = re.compile(r"tnt-[0-9a-f]{10}")
LOST = "none"  # in the file of the job: Slurm knows no job of that name


@dataclass(frozen=True)
class Launch:
    directory: Path  # its name is that of the job
    runs: tuple[str, ...]  # ids, by the array's index
    calibration: float = 0.0  # seconds that they train to be measured; 0: to their ends

    @classmethod
    def begin(cls, runs_directory: Path, runs: Iterable[str], calibration: float = 0.0) -> "Launch":
        launch = cls(runs_directory / FOLDER / f"tnt-{secrets.token_hex(5)}", tuple(runs), calibration)
        launch.directory.mkdir(parents=True, mode=0o700)
        said = {"runs": launch.runs, "calibration": calibration}
        publish_bytes(launch.directory / LAUNCH, (json.dumps(said) + "\n").encode())
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
        partial.write_text(f"{job}\n")
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
        partial.unlink()
        return self.job

    def task(self, id: str) -> str:
        """The job of one of its runs."""
        return f"{self.job}_{self.runs.index(id)}" if self.job else ""


@contextmanager
def submitting(runs: Path) -> Iterator[None]:
    """Allow one submission at a time, on all machines that share the directory."""
    folder = runs / FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    said = "another launch is submitting; waiting for it"
    with locked(folder / LOCK, waiting=lambda: print(said, file=sys.stderr)):
        yield


def read(directory: Path) -> Launch:
    if not NAME.fullmatch(directory.name):
        raise UserError(f"{directory} is no launch: a copy, or a renamed one, does not count")
    try:
        said = read_json(directory / LAUNCH, {"runs": [str]})
        return Launch(directory, tuple(said["runs"]), said.get("calibration", 0.0))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{directory} is no launch: {error}") from error


def read_all(runs: Path) -> list[Launch]:
    """All launches, the oldest first."""
    found = sorted((runs / FOLDER).glob(f"tnt-*/{LAUNCH}"), key=os.path.getmtime)
    return [read(path.parent) for path in found]


def adopt(runs: Path) -> list[str]:
    """Find and note the jobs of launches whose submitter was killed before; a line for each."""
    said = []
    for launch in read_all(runs):
        if launch.job is None:
            name = launch.directory.name
            arrays = sorted({id.partition("_")[0] for id in commands.named(name)}, key=int)
            if job := launch.settle(arrays[0] if arrays else LOST):
                said.append(f"job {job} was submitted as {name} but not noted; it is now")
    return said


def jobs(runs: Path, ids: Iterable[str]) -> dict[str, Job]:
    """The job of each run, of launches and of batch scripts: the live one, else the newest known."""
    known = {id: {attempt.job for attempt in attempts(runs / id) if attempt.job} for id in ids}
    for launch in read_all(runs):
        for id in known.keys() & set(launch.runs) if launch.job else ():
            known[id].add(launch.task(id))
    states = commands.jobs(job for found in known.values() for job in found)
    chosen = {}
    for id, found in known.items():  # Slurm numbers its jobs in their order
        remembered = sorted((states[job] for job in found if job in states), key=lambda job: _number(job.id))
        if remembered:
            chosen[id] = next((job for job in remembered if job.live), remembered[-1])
    return chosen


def _number(job: str) -> tuple[int, ...]:
    return tuple(map(int, job.split("_")))


def outputs(runs: Path, id: str) -> list[Path]:
    """What the ranks of a run have printed as jobs, the newest job's last."""
    found: list[Path] = []
    for launch in read_all(runs):
        if id in launch.runs and launch.job:
            found += sorted(launch.directory.glob(f"{launch.task(id)}_*.out"))
    return found
