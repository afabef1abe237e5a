"""The pages for users against the repository: the tree, the commands, the Python, the links."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = sorted(path for room in (".", "docs", "results", "slurm") for path in (ROOT / room).glob("*.md"))
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    block
    for page in GUIDES
    for block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), flags=re.M | re.S)
]


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def commands() -> list[str]:
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    found = [line.split("#")[0].strip() for line in lines]
    return list(dict.fromkeys(line for line in found if line))


def make_targets() -> list[str]:
    return re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.M)


def test_the_tree_names_what_is_there_and_all_of_it():
    (tree,) = [text for text in blocks("text") if "setup.cfg" in text]
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if line[:1].strip()}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in tracked.splitlines()}
    assert named <= top | {"README.md"}
    assert {entry for entry in top if not entry.startswith(".")} <= named


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(doc):
    for target in re.findall(r"\]\(([^)]+)\)", doc.read_text()):
        if not target.startswith(("http://", "https://", "#")):
            assert (doc.parent / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("command", commands())
def test_commands_name_things_that_exist(command):
    words = command.split()
    if words[0] == "make":
        assert words[1] in make_targets()
    elif words[:2] == ["python", "-m"]:
        module = ROOT / words[2].replace(".", "/")
        assert module.with_suffix(".py").exists() or (module / "__main__.py").exists(), words[2]
    elif words[0] in ("python", "sbatch"):
        assert (ROOT / words[1]).exists(), words[1]
    else:
        assert words[0] in ("git", "cd", "pip", "source"), f"{command}: what is {words[0]}?"


@pytest.mark.parametrize("program", blocks("python"))
def test_python_in_the_pages_runs(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "a page", "exec"), {})


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_make_alone_lists_every_target():
    command = ["make", "--no-print-directory"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    listed = [line.split()[1] for line in done.stdout.splitlines()]
    assert sorted(listed) == sorted(target for target in make_targets() if not target.startswith("."))


@needs_make
def test_the_demo_installs_nothing_for_tests(tmp_path):
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    for name in ("Makefile", "setup.cfg", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for target, argument in {"demo": "demo", "test": "test", "test-fast": "test"}.items():
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        setups = [line for line in done.stdout.splitlines() if ".ci/setup" in line]
        assert setups == [f"sh .ci/setup {argument}"]
