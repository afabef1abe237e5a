"""Checkpoints are hashed before they are believed: damaged ones are found and moved aside."""

import json
import random
import shutil
from pathlib import Path

import pytest

from pipeline.errors import WorkFailed
from pipeline.runs.checkpoints import (
    BAD,
    COMMITS,
    MANIFEST,
    Checkpoints,
    commits,
    name_of,
    problem_with,
)
from tests.pipeline.runs.published import publish


def damage(path: Path, source: random.Random) -> str:
    """One bit turned, some bytes cut off, or a file removed, anywhere in a checkpoint."""
    file = source.choice(sorted(found for found in path.rglob("*") if found.is_file()))
    content = bytearray(file.read_bytes())
    kind = source.choice(["bit", "cut", "removed", "grown"])
    if kind == "bit":
        content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    elif kind == "cut":
        del content[source.randrange(len(content)) :]
    elif kind == "grown":
        content += b"\0"
    file.unlink() if kind == "removed" else file.write_bytes(content)
    return f"{kind} of {file.name}"


def test_a_thousand_damages_are_all_found(tmp_path):
    whole = publish(Checkpoints(tmp_path / "whole"), 40)
    source = random.Random(0)
    unseen = []
    for index in range(1000):
        broken = tmp_path / str(index) / name_of(40)
        shutil.copytree(whole, broken)
        what = damage(broken, source)
        if not problem_with(broken):
            unseen.append(what)
        shutil.rmtree(broken.parent)
    assert not unseen
    assert problem_with(whole) == ""


def test_damaged_ones_are_moved_aside_and_the_one_before_is_used(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (10, 20, 30):
        publish(checkpoints, step)
    (tmp_path / name_of(30) / MANIFEST).unlink()
    weights = tmp_path / name_of(20) / "weights-0.bin"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    found = Checkpoints(tmp_path).resume()
    assert found.step == 10
    assert "No such file" in found.passed_over[0]
    assert "weights-0.bin has another SHA-256" in found.passed_over[1]
    assert len(list(tmp_path.glob(BAD + "*"))) == 2
    assert Checkpoints(tmp_path).resume().passed_over == ()


@pytest.mark.parametrize("how", ["removed", "damaged", "damaged, and commits.jsonl removed"])
def test_a_run_that_had_checkpoints_never_begins_from_zero(tmp_path, how):
    path = publish(Checkpoints(tmp_path), 10)
    if how == "removed":
        shutil.rmtree(path)
    else:
        (path / MANIFEST).write_text("{}")
        if how != "damaged":
            (tmp_path / COMMITS).unlink()
    for _ in range(2):  # the second time nothing is there to be moved aside
        with pytest.raises(WorkFailed, match=r"none of them can be read.*Bring one back, or remove"):
            Checkpoints(tmp_path).resume()


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../outside": {"bytes": 0, "sha256": ""}}},
        {"files": []},
        {"step": "40"},
        {"step": 41},
        {"format": 2},
        [],
        None,
    ],
)
def test_a_manifest_that_we_did_not_write_is_refused(tmp_path, change):
    path = publish(Checkpoints(tmp_path), 40)
    (tmp_path / "outside").write_bytes(b"")
    content = json.loads((path / MANIFEST).read_text())
    content = {**content, **change} if isinstance(change, dict) else change
    (path / MANIFEST).write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")
    assert problem_with(path)


def test_what_does_not_belong_there_is_refused(tmp_path):
    path = publish(Checkpoints(tmp_path), 40)
    (path / "engine/mp_rank_01_model_states.pt").write_bytes(b"planted")
    assert "mp_rank_01_model_states.pt does not belong" in problem_with(path)
    (path / "engine/mp_rank_01_model_states.pt").unlink()
    weights = path / "weights-0.bin"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    assert "weights-0.bin" in problem_with(path)


def test_a_line_cut_off_by_a_crash_does_not_swallow_the_next(tmp_path):
    publish(Checkpoints(tmp_path), 1)
    with (tmp_path / COMMITS).open("a") as file:
        file.write('{"step": 2, "ti')
    publish(Checkpoints(tmp_path), 3)
    assert [line["step"] for line in commits(tmp_path)] == [1, 3]
