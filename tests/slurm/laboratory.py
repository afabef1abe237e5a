"""A copy of the repository, as a user has it, from which runs are launched on the tests' cluster."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.pipeline.ranks import ROOT, environment
from tests.slurm.cluster import Cluster

ROOMS = ("tnt", "pipeline", "ablations", "slurm")
PATIENCE = 150.0  # seconds; only a failing test waits for it
TINY = (
    "scale=demo",
    "model.depth=1",
    "data.image_size=32",
    "recipe.global_batch=96",
    "engine.micro_batch=96",  # one rank is enough
    "recipe.epochs=1",
    "recipe.warmup_epochs=0",
    "logging.every=1",
    "logging.tensorboard=false",
    "engine.checkpoint_minutes=1e-9",  # after every step
)
STEPS = 14
# An ablation of the user's own: one run that starts from another.
FAMILY = '''"""One run that starts from another."""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="",
    title="A run and its child",
    why="A test.",
    varies=("recipe.lr",),
    rows=(Cell("child", ("recipe.lr=1e-4",), starts_from=("recipe.epochs=2",)),),
)
'''


class Laboratory:
    def __init__(self, cluster: Cluster, folder: Path, digits: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.root, self.runs, self.records = folder / "lab", folder / "runs", folder / "records"
        for room in ROOMS:
            shutil.copytree(ROOT / room, self.root / room, ignore=shutil.ignore_patterns("__pycache__"))
        (self.root / ".venv").symlink_to(sys.prefix)  # which the batch files look for
        self.settings = (
            *TINY,
            f"paths.runs={self.runs}",
            f"paths.records={self.records}",
            f"data.root={digits}",
        )
        (self.root / "ablations/family.py").write_text(FAMILY)

    def commit(self) -> str:
        """Put all of it under git; the commit."""
        who = ("-c", "user.name=t", "-c", "user.email=t@localhost")
        for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "All")):
            self._git(*words)
        return self._git("rev-parse", "HEAD")

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """launch.py with these words and the small settings."""
        cluster = () if any(word.startswith("cluster=") for word in words) else ("cluster=slurm",)
        return subprocess.Popen(
            [sys.executable, "pipeline/launch.py", *cluster, *self.settings, *words],
            cwd=self.root,
            env=self.environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def environment(self, **more: str) -> dict[str, str]:
        conf = {"SLURM_CONF": self.cluster.env["SLURM_CONF"], "PYTHONPATH": str(self.root)}
        return {**environment(), **conf, "PYTHON": sys.executable, **more}

    def launch(self, *words: str, status: int = 0, env: Mapping[str, str] | None = None) -> str:
        """Standard output, and where it was to fail what it said."""
        process = self.start(*words, env=env)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == status, f"status {process.returncode}\n{out}\n{err}"
        return out + err if status else out

    def ask(self, *words: str, status: int = 0) -> Any:
        return json.loads(self.launch(*words, "json=true", status=status))

    def submit(self, *words: str) -> dict[str, dict[str, Any]]:
        return {one["id"]: one for one in self.ask(*words)["submitted"]}

    def states(self, *words: str) -> dict[str, str]:
        process = self.start(*words, "action=status", "json=true")
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, 1), err
        return {run["id"]: run["state"] for run in json.loads(out)["runs"]}

    def record(self, id: str) -> dict[str, Any]:
        return json.loads((self.records / f"{id}.json").read_text())

    def finished(self, *ids: str) -> None:
        """Wait for the records of these runs."""
        self.cluster.wait(
            lambda: all((self.records / f"{id}.json").exists() for id in ids),
            PATIENCE,
            f"{ids}\n{self.said()}",
        )

    def passes(self, id: str, step: int) -> None:
        """Wait for a checkpoint of this step or a later one."""
        steps = lambda: [int(path.name[5:]) for path in self.runs.glob(f"{id}/checkpoints/step-*")]  # noqa: E731
        self.cluster.wait(lambda: max(steps(), default=0) >= step, PATIENCE, f"step {step} of {id}")

    def said(self) -> str:
        """What the jobs printed."""
        files = [*self.runs.glob(".launches/*/*.out"), *self.root.glob("*.out")]
        return "\n".join(f"== {path}\n{path.read_text(errors='replace')[-2000:]}" for path in sorted(files))

    def batch(self, *words: str) -> str:
        """sbatch from the repository's root; the job."""
        return self.cluster.submit(*words, cwd=self.root)

    def _git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()
