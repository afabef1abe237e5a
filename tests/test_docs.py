"""The pages for whoever changes something, against the repository: paths, targets, versions, templates."""

import os
import re
import subprocess
from importlib.metadata import version

import pytest
import yaml

from tests.sources import ROOT

GUIDES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "slurm" / "README.md"]
MAP = (ROOT / "docs" / "architecture.md").read_text().split("## Where to change what")[1]
MADE_LATER = (
    "runs/",
    "photos/",
    "earlier/",
    "log.txt",
    "results/records/",
    "results/evaluations/",
    "results/answers/",
    "demo/",
    "data/",
    "/",
    "pipeline/conf/cluster/mysite.yaml",
)


def paths(text: str) -> list[str]:
    """Words in backticks that look like a file or a folder of the repository."""
    words = [word for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()]
    found = [
        word for word in words if re.fullmatch(r"[\w.-]*/[\w./-]*|[\w-]+\.(py|md|sh|txt|cfg|yaml)", word)
    ]
    return [word for word in found if not word.startswith(MADE_LATER)]


def known() -> set[str]:
    """All files and folders, and each by the last parts of its path too."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = set()
    for line in listed.splitlines():
        parts = line.split("/")
        for end in range(1, len(parts) + 1):
            names |= {"/".join(parts[start:end]) for start in range(end)}
    return names


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_paths_exist(guide):
    names = known()
    assert [path for path in paths(guide.read_text()) if path.rstrip("/") not in names] == []


def test_a_path_that_does_not_exist_is_found():
    assert paths("`tnt/gone.py` and `pytest -n 2 tests/gone` in `gone.py`") == [
        "tnt/gone.py",
        "tests/gone",
        "gone.py",
    ]
    assert not {"tnt/gone.py", "tests/gone", "gone.py"} & known()


def test_the_map_says_for_many_changes_which_file_to_open():
    rows = [line.strip("|").split("|") for line in MAP.splitlines() if line.startswith("|")][2:]
    assert len(rows) >= 25
    assert [row[0].strip() for row in rows if not paths(row[1])] == []


def test_every_room_is_in_the_picture():
    picture = re.findall(
        r"```mermaid\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), flags=re.S
    )[0]
    rooms = [path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")]
    scripts = [path.name for path in (ROOT / "pipeline").glob("*.py") if path.name != "__init__.py"]
    assert [name for name in (*rooms, *scripts) if name not in picture] == []


def test_contributors_are_told_targets_that_make_knows():
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.M)
    told = re.findall(r"\bmake ([\w-]+)", (ROOT / "CONTRIBUTING.md").read_text())
    assert set(told) <= set(targets)


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert citation["version"] == released[0] == version("tnt-lab")


def test_github_runs_what_a_developer_runs():
    (workflow,) = (ROOT / ".github" / "workflows").glob("*.yml")
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert [command.split()[-1] for command in commands] == [".ci/run", "slurmdbd", "test-nightly"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
