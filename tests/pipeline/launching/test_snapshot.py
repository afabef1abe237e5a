"""The code kept for queued runs."""

import json
import subprocess
import sys

import pytest

from pipeline.errors import WorkFailed
from pipeline.launching import snapshot
from pipeline.runs.provenance import UNKNOWN, Code, code
from tests.pipeline.ranks import environment


@pytest.fixture
def tree(tmp_path):
    """A small repository."""
    root = tmp_path / "tree"
    for room in snapshot.ROOMS:
        (root / room).mkdir(parents=True)
        (root / room / "__init__.py").write_text("")
    (root / "pipeline/said.py").write_text('print("as it was")\n')
    (root / "pipeline/rank.sh").write_text("#!/bin/sh\n")
    (root / "pipeline/rank.sh").chmod(0o755)
    (root / "pipeline/__pycache__").mkdir()
    (root / "pipeline/__pycache__/said.pyc").write_bytes(b"\0")
    return root


def git(root, *words):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def commit(root):
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "All")
    return git(root, "rev-parse", "HEAD")


def test_what_was_kept_runs_as_it_was_and_says_its_commit(tree, tmp_path):
    head = commit(tree)
    kept = snapshot.take(tmp_path / "runs", tree)
    assert not list(kept.rglob("__pycache__"))
    (tree / "pipeline/said.py").write_text('print("edited")\n')
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.said"],
        cwd=kept,
        env=environment(PYTHONPATH=str(kept)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "as it was\n"
    assert code(kept) == Code(head, False)
    assert (kept / "pipeline/rank.sh").stat().st_mode & 0o111
    assert (kept / snapshot.DIFFERENCE).read_bytes() == b""


def test_changes_are_kept_beside_the_code_and_can_be_applied(tree, tmp_path):
    head = commit(tree)
    (tree / "pipeline/said.py").write_text('print("a trailing space") \n')
    (tree / "pipeline/new.py").write_text("")
    kept = snapshot.take(tmp_path / "runs", tree)
    assert code(kept) == Code(head, True)
    assert (kept / "pipeline/new.py").exists()  # no commit holds it, but a run may import it
    git(tree, "checkout", "-q", "pipeline/said.py")
    git(tree, "apply", str(kept / snapshot.DIFFERENCE))
    assert (tree / "pipeline/said.py").read_text() == 'print("a trailing space") \n'


def test_equal_code_is_kept_once_and_another_commit_apart(tree, tmp_path):
    commit(tree)
    first = snapshot.take(tmp_path / "runs", tree)
    assert snapshot.take(tmp_path / "runs", tree) == first
    (tree / "README.md").write_text("no run reads it\n")
    commit(tree)
    second = snapshot.take(tmp_path / "runs", tree)
    assert second != first
    assert code(second).commit != code(first).commit
    assert sorted((tmp_path / "runs" / snapshot.FOLDER).iterdir()) == sorted([first, second])
    assert snapshot.take(tmp_path / "others", first) == first  # launched from kept code


def test_without_git_the_code_is_kept_all_the_same(tree, tmp_path, capsys):
    kept = snapshot.take(tmp_path / "runs", tree)
    assert json.loads((kept / "code.json").read_text()) == {"commit": UNKNOWN, "dirty": True}
    assert "git does not say" in capsys.readouterr().err
    assert (kept / "pipeline/said.py").exists()


def test_a_place_that_cannot_be_written_is_said(tree, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(WorkFailed, match="cannot be kept"):
        snapshot.take(tmp_path / "runs", tree)
