"""Checkpoints that exist whole or not at all, and are believed only after every byte has been hashed again.

    checkpoints/
      step-00000040/      published: its MANIFEST.json holds size and SHA-256 of every other file
        MANIFEST.json
        state.json        where the run stands, as the trainer gave it
        …                 what the ranks wrote
        PINNED            put here by hand: this checkpoint is never removed
      commits.jsonl       one line for each that was ever published
      .tmp-…  .trash-…    being written, being removed; swept away at the next start
      .bad-…              did not verify, moved aside

A run goes on while its checkpoint, copied from the device before, is written by a thread. Ranks write side by
side into a temporary directory; errors and hashes of all are gathered before anything is published, so that
all publish or all fail; a rename publishes. Importing this module does not import torch: the launcher reads
checkpoints as well.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, WorkFailed
from pipeline.files import append_row, flush_directory, publish_bytes, rows, sha256
from pipeline.processes.place import Place
from pipeline.processes.ranks import Ranks, T
from pipeline.runs import history
from tnt.untrusted.reading import json_of, read_bytes, read_json
from tnt.untrusted.writing import storing

FORMAT = 1
SHAPE = {"format": int, "step": int, "files": {str: {"bytes": int, "sha256": str}}}  # of the manifest
MANIFEST, STATE, PINNED, COMMITS = "MANIFEST.json", "state.json", "PINNED", "commits.jsonl"
TEMPORARY, TRASH, BAD = ".tmp-", ".trash-", ".bad-"
STEP = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    step: int
    path: Path
    state: dict[str, Any]
    passed_over: tuple[str, ...] = ()  # newer ones that did not verify, and why


class SaveFailed(WorkFailed):
    """A checkpoint could not be stored; the training itself may go on."""


class Checkpoints(AbstractContextManager):
    """The checkpoints of one run. Methods that several ranks take part in are called by all of them alike.

    `ranks` are for these methods alone where checkpoints are published beside other work: exchanges of two
    threads must not meet.
    """

    def __init__(self, root: Path, ranks: Ranks | None = None, keep: int = 2, part: float = 0) -> None:
        """`keep` newest are kept, and where `part` is given the oldest of each so many steps."""
        self.root, self.keep, self.part = root, keep, part
        self.ranks = ranks or Ranks(Place("plain"))
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._begun: Future[Path] | None = None
        self.newest = 0  # the step whose checkpoint was begun last

    def __exit__(self, *_: object) -> None:
        """What was begun is still published, whatever has ended the run."""
        self._writer.shutdown()

    def begin(
        self, step: int, write: Callable[[Path], list[str]], state: dict[str, Any], best: int = 0
    ) -> None:
        """Publish beside what the caller does next; `finish` comes before the next one."""
        assert self._begun is None, "one at a time"
        self.newest = step
        self._begun = self._writer.submit(self.publish, step, write, state, best)

    def finish(self) -> bool:
        """Wait for what was begun, and raise as `publish` does; False where nothing was."""
        begun, self._begun = self._begun, None
        if begun:
            begun.result()
        return begun is not None

    def publish(
        self, step: int, write: Callable[[Path], list[str]], state: dict[str, Any], best: int = 0
    ) -> Path:
        """Every rank's `write(directory)` writes its files and names them; `state` is rank 0's.

        `best`: the step of an earlier checkpoint that is kept beside the newest.
        A run's state at a step is always the same, so a step that is there already is not written again. All
        ranks raise SaveFailed where one of them could not store its part.
        """
        directory = None
        try:
            if directory := self.ranks.lead(lambda: _stored(lambda: self._begin(step))):
                parts = self._parts(directory, write, state)
                self.ranks.lead(lambda: _stored(lambda: self._commit(step, directory, parts, best)))
        except WorkFailed as error:
            if directory and self.ranks.rank == 0:
                shutil.rmtree(directory, ignore_errors=True)
            raise type(error)(
                f"the checkpoint of step {step} was not written ({error}); "
                f"those before it in {self.root} are untouched"
            ) from error
        return self.root / name_of(step)

    def _parts(
        self, directory: Path, write: Callable[[Path], list[str]], state: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """What each rank has written, once all of them have."""
        error: UserError | None = None
        files: dict[str, dict[str, Any]] = {}
        try:
            files = _stored(lambda: _written(directory, write, state, self.ranks.rank))
        except UserError as met:
            error = met
        except Exception as met:  # it must reach the other ranks before anybody raises
            traceback.print_exc()
            error = WorkFailed(f"{type(met).__name__}: {met}")
        outcomes = self.ranks.gather((error, files))
        errors = {rank: error for rank, (error, _) in enumerate(outcomes) if error}
        if errors:
            kinds = {type(error) for error in errors.values()}
            kind = SaveFailed if kinds == {SaveFailed} else WorkFailed
            raise kind("; ".join(f"rank {rank}: {error}" for rank, error in errors.items()))
        return [files for _, files in outcomes]

    def resume(self) -> Checkpoint | None:
        """The newest checkpoint whose every byte verifies; newer ones that do not are moved aside.

        None only where nothing was ever published.
        """
        return self.ranks.lead(self._newest)

    def _begin(self, step: int) -> Path | None:
        """A new directory to write into; None where this step is published already."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self.root / name_of(step)
        if target.exists():
            if not problem_with(target):
                return None
            self._move_aside(target)
        directory = self.root / f"{TEMPORARY}{name_of(step)}-{secrets.token_hex(4)}"
        directory.mkdir(mode=0o700)
        return directory

    def _commit(self, step: int, directory: Path, parts: list[dict[str, Any]], best: int) -> None:
        files = {name: entry for part in parts for name, entry in part.items()}
        assert len(files) == sum(map(len, parts)), "two ranks wrote the same file"
        content = _canonical({"format": FORMAT, "step": step, "files": files})
        publish_bytes(directory / MANIFEST, content)
        (directory / MANIFEST).chmod(0o600)
        for folder in [path for path in directory.rglob("*") if path.is_dir()] + [directory]:
            flush_directory(folder)
        os.rename(directory, self.root / name_of(step))
        flush_directory(self.root)
        line = {"step": step, "time": round(time.time(), 3), "manifest": hashlib.sha256(content).hexdigest()}
        append_row(self.root / COMMITS, line | {"history": history.noted(self.root.parent)})
        self._retain(best)

    def _retain(self, best: int) -> None:
        """Keep the newest, the best, the parts' and the pinned; what goes loses its name first."""
        found = sorted(published(self.root))
        oldest = {step // self.part: step for step, _ in reversed(found)} if self.part else {}
        for step, path in found[: -self.keep]:
            if step not in (best, *oldest.values()) and not (path / PINNED).exists():
                trash = self.root / f"{TRASH}{path.name}-{secrets.token_hex(4)}"
                os.rename(path, trash)
                shutil.rmtree(trash, ignore_errors=True)

    def _newest(self) -> Checkpoint | None:
        if not self.root.is_dir():
            return None
        for leftover in [*self.root.glob(TEMPORARY + "*"), *self.root.glob(TRASH + "*")]:
            shutil.rmtree(leftover, ignore_errors=True)
        passed_over: list[str] = []
        for step, path in sorted(published(self.root), reverse=True):
            problem = problem_with(path)
            if not problem:
                state = read_json(path / STATE, dict)
                return Checkpoint(step, path, state, tuple(passed_over))
            aside = self._move_aside(path)
            passed_over.append(f"checkpoint {path.name}: {problem}; moved aside to {aside.name}")
        committed = len(commits(self.root)) or len(list(self.root.glob(BAD + "*")))
        if committed:
            raise WorkFailed(
                f"{committed} checkpoints were written to {self.root} and none of them can be read"
                f"{''.join(f'; {one}' for one in passed_over)}. Bring one back, or remove {self.root} to "
                "begin from zero"
            )
        return None

    def _move_aside(self, path: Path) -> Path:
        aside = self.root / f"{BAD}{path.name}-{secrets.token_hex(4)}"
        os.rename(path, aside)
        flush_directory(self.root)
        return aside


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def published(root: Path) -> Iterator[tuple[int, Path]]:
    """(step, directory) of every published checkpoint, verified or not, in no order."""
    for path in root.iterdir() if root.is_dir() else ():
        if match := STEP.fullmatch(path.name):
            yield int(match[1]), path  # type: ignore[text-number]


def commits(root: Path) -> list[dict[str, Any]]:
    """What was ever published, oldest first."""
    return rows(root / COMMITS)


def problem_with(path: Path) -> str:
    """Why a published checkpoint must not be loaded; empty when all is as it was written."""
    try:
        content = read_bytes(path / MANIFEST)
        manifest = json_of(content, MANIFEST, SHAPE)
        # Only one spelling is valid, so that every bit of the manifest itself counts.
        if _canonical(manifest) != content:
            return f"{MANIFEST} was changed"
        if manifest["format"] != FORMAT or name_of(manifest["step"]) != path.name:
            return f"{MANIFEST} is of format {manifest['format']}, step {manifest['step']}"
        files = manifest["files"]
        there = {found.relative_to(path).as_posix() for found in path.rglob("*") if not found.is_dir()}
        if surplus := there - {*files, MANIFEST, PINNED}:
            return f"{min(surplus)} does not belong to it"
        for name, entry in files.items():
            if name not in there:
                return f"{name} is missing"
            if (path / name).is_symlink() or (path / name).stat().st_size != entry["bytes"]:
                return f"{name} does not have its {entry['bytes']} bytes"
            if sha256(path / name) != entry["sha256"]:
                return f"{name} has another SHA-256 than when it was written"
    except OSError as error:
        return f"{error.strerror or error}: {error.filename}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} is damaged ({type(error).__name__}: {error})"
    return ""


def write_files(files: Mapping[str, bytes | memoryview], directory: Path) -> list[str]:
    with storing(directory, sum(map(len, files.values()))):
        for name, content in files.items():
            path = directory / name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_bytes(content)
    return list(files)


def _written(
    directory: Path, write: Callable[[Path], list[str]], state: dict[str, Any], rank: int
) -> dict[str, dict[str, Any]]:
    """A rank's part of the manifest, once its files are on the disk."""
    names = write(directory)
    if rank == 0:
        publish_bytes(directory / STATE, _canonical(state))
        names = [*names, STATE]
    files = {}
    for name in names:
        path = directory / name
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.chmod(0o600)
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    return files


def _stored(work: Callable[[], T]) -> T:
    try:
        return work()
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise SaveFailed(f"{error.strerror or error}{where}") from error


def _canonical(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False) + "\n").encode()
