"""Small real runs of pipeline/train.py on the digits, and what they leave."""

import hashlib
import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.ranks import DEADLINE, ROOT, finish, start_ranks

SMALL = (
    "scale=demo",
    "model=tnt_ti",
    "data.image_size=32",
    "data.augmentation.erase=0.25",
    "recipe.drop_path=0.1",
    "recipe.global_batch=96",
    "recipe.epochs=2",
    "recipe.evaluate_every=1",
    "recipe.warmup_epochs=1",
    "logging.every=1",
    "logging.tensorboard=false",
    "engine.checkpoint_minutes=1e-9",  # after every step
)
STEPS = 28  # 14 in an epoch
# Tests that compare with the same undisturbed run go to the same worker, which makes that run once.
ALONE, TWO = (pytest.mark.xdist_group(name) for name in ("train alone", "train two"))


@dataclass(frozen=True)
class Left:
    """Everything about a finished run that must not depend on how often it was killed."""

    weights: str
    metrics: bytes
    checkpoint: str  # weights, their average and the optimizer's state after the last step

    @classmethod
    def by(cls, directory: Path) -> "Left":
        newest = max((directory / "checkpoints").glob("step-*"))
        files = json.loads((newest / "MANIFEST.json").read_text())["files"]
        del files["state.json"]  # it also says what went wrong
        return cls(
            hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest(),
            (directory / "metrics.jsonl").read_bytes(),
            json.dumps(files, sort_keys=True),
        )


class Place:
    """A folder with runs, records and digits."""

    def __init__(self, folder: Path, digits: Path) -> None:
        self.folder = folder
        self.settings = (
            *SMALL,
            f"paths.runs={folder / 'runs'}",
            f"paths.records={folder / 'records'}",
            f"data.root={digits}",
        )

    def start(
        self, *more: str, world: int = 1, env: Mapping[str, str] | None = None, **options: Any
    ) -> list[subprocess.Popen]:
        command = [ROOT / "pipeline/train.py", *self.settings, *more]
        return start_ranks(world, command, env, **options)

    def train(self, *more: str, world: int = 1, **options: Any) -> Path:
        """To the end, with checkpoints after epochs unless `more` says otherwise; the run's directory."""
        processes = self.start("engine.checkpoint_minutes=0", *more, world=world, **options)
        try:
            finish(processes)
        finally:
            for process in processes:
                process.kill()
        return self.directory

    @property
    def directory(self) -> Path:
        [directory] = (path for path in (self.folder / "runs").iterdir() if path.name[0] != ".")
        return directory

    @property
    def record(self) -> dict[str, Any]:
        [path] = (self.folder / "records").glob("*.json")
        return json.loads(path.read_text())

    def log(self) -> str:
        return (self.directory / "log.txt").read_text()

    def steps(self) -> list[int]:
        """Of published checkpoints, oldest first."""
        return sorted(int(path.name[5:]) for path in self.folder.glob("runs/*/checkpoints/step-*"))

    def reaches(self, step: int, processes: list[subprocess.Popen]) -> None:
        """Wait until a checkpoint of this step, or a later one, is published."""
        deadline = time.monotonic() + DEADLINE
        while not self.steps() or self.steps()[-1] < step:
            ended = [process for process in processes if process.poll() is not None]
            assert not ended, ended[0].communicate()
            assert time.monotonic() < deadline, f"step {step} was not reached"
            time.sleep(0.01)  # between two looks


def end_of(process: subprocess.Popen) -> tuple[int, str]:
    _, err = process.communicate(timeout=DEADLINE)
    return process.returncode, err
