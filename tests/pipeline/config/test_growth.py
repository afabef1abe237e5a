"""The code grows, and ids and records keep their meaning: real edits to a copy of it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.identity import REVISIONS, run_id
from pipeline.config.overrides import compose

DATA = "f" * 64
ROOT = Path(__file__).parents[3]
IDS = Path(__file__).with_name("ids.json")  # committed: overrides → id
PROGRAM = """
import json, sys
from pipeline.config.identity import run_id
from pipeline.config.overrides import compose
from pipeline.runs import records
ids = {text: run_id(compose(text.split()), "f" * 64) for text in json.load(open(sys.argv[1]))}
found, problems = records.read_all(sys.argv[2])
print(json.dumps({"ids": ids, "records": [record.id for record in found], "problems": problems}))
"""
SCIENCE, BIRTH, BIRTH_PY = (f"pipeline/config/{name}" for name in ("science.py", "birth.json", "birth.py"))
WARMUP = "class Warmup:\n    lr: float = 1e-6\n\n\n@dataclass(frozen=True)\nclass Recipe:"
RENAMED = {"recipe.warmup.lr": "recipe.warmup_lr", "recipe.memory": "recipe.ema_share"}
EPOCHS = "    epochs: int = 300"


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    for package in ("tnt", "pipeline"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def told(code: Path, edits: list[tuple[str, str, str]], names: Path = IDS) -> dict:
    """What the edited code says of the ids and of the records; the edits are taken back."""
    before = {path: (code / path).read_text() for path, _, _ in edits}
    try:
        for path, old, new in edits:
            text = (code / path).read_text()
            assert old in text, f"{path} no longer holds {old!r}"
            (code / path).write_text(text.replace(old, new))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, names, ROOT / "results/shipped"],
            cwd=code,
            env={"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": str(code)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.returncode, done.stderr
        return json.loads(done.stdout)
    finally:
        for path, text in before.items():
            (code / path).write_text(text)


def test_the_ids_of_this_code_are_those_that_are_committed():
    committed = json.loads(IDS.read_text())
    assert len(committed) >= 30
    assert {text: run_id(compose(text.split()), DATA) for text in committed} == committed


def test_ids_and_records_stay_when_the_code_grows(code):
    """By a new setting, a section of its own for another, a new name for a third, and without a fourth."""
    edits = [
        (SCIENCE, EPOCHS, f"    momentum: float = 0.9\n{EPOCHS}"),
        (BIRTH, '"recipe.epochs"', '"recipe.momentum": 0.9, "recipe.epochs"'),
        (SCIENCE, "    warmup_lr: float = 1e-6", "    warmup: Warmup = field(default_factory=Warmup)"),
        (SCIENCE, '    "warmup_lr": RATES,\n', ""),
        (SCIENCE, "class Recipe:", WARMUP),
        (SCIENCE, "ema_share", "memory"),
        (BIRTH_PY, "RENAMED: dict[str, str] = {}", f"RENAMED = {RENAMED}"),
        (SCIENCE, "    clip: float = 0.0  # largest norm of the gradient; 0 = not clipped\n", ""),
        (SCIENCE, '    "clip": Range(0, 1_000_000),\n', ""),
    ]
    found = told(code, edits)
    assert found["ids"] == json.loads(IDS.read_text())
    assert found["records"] == [path.stem for path in sorted((ROOT / "results/shipped").glob("*.json"))]
    assert not found["problems"]


def test_a_new_default_leaves_the_ids_of_what_is_said(code, tmp_path):
    names = tmp_path / "names.json"
    names.write_text(json.dumps(["recipe.lr=1e-3", "recipe.lr=2e-3", ""]))
    before = told(code, [], names)["ids"]
    after = told(code, [(SCIENCE, "lr: float = 1e-3", "lr: float = 2e-3")], names)["ids"]
    assert before[""] == before["recipe.lr=1e-3"] == after["recipe.lr=1e-3"]
    assert after[""] == after["recipe.lr=2e-3"] == before["recipe.lr=2e-3"]


def test_a_setting_without_a_birth_value_is_refused(code):
    with pytest.raises(AssertionError, match=r"recipe\.momentum is unknown.*birth\.json"):
        told(code, [(SCIENCE, EPOCHS, f"    momentum: float = 0.9\n{EPOCHS}")])


def test_a_revision_concerns_the_runs_that_it_names(monkeypatch):
    committed = json.loads(IDS.read_text())
    _, concerns = REVISIONS["drop_path"]
    monkeypatch.setitem(REVISIONS, "drop_path", (3, concerns))
    unchanged = {text for text, id in committed.items() if run_id(compose(text.split()), DATA) == id}
    assert unchanged == {text for text in committed if "scale=demo" in text or "recipe.drop_path=0" in text}
