"""The files of a run that grow: no change of what a checkpoint has seen goes unnoticed."""

import pytest

from pipeline.runs.checkpoints import Checkpoints, commits
from pipeline.runs.history import changes
from tests.pipeline.runs.published import writer

LINES = b'{"step": 0, "time": 1}\n{"step": 5, "time": 2}\n'


@pytest.fixture
def run(tmp_path):
    for name in ("timing.jsonl", "attempts.jsonl"):
        (tmp_path / name).write_bytes(LINES)
    Checkpoints(tmp_path / "checkpoints").publish(5, writer(5), {})
    return tmp_path


def found(run):
    return changes(run, commits(run / "checkpoints"))


def test_lines_that_were_added_are_no_change(run):
    assert found(run) == []
    with open(run / "timing.jsonl", "ab") as file:
        file.write(b'{"step": 6, "time": 3}\n')
    assert found(run) == []


def test_a_line_that_is_being_written_may_be_torn(tmp_path):
    (tmp_path / "timing.jsonl").write_bytes(LINES + b'{"step": 6, "ti')
    Checkpoints(tmp_path / "checkpoints").publish(5, writer(5), {})
    (tmp_path / "timing.jsonl").write_bytes(LINES)
    assert found(tmp_path) == []


@pytest.mark.parametrize("content", [b"", LINES[:-1], LINES[:23], LINES.replace(b"2", b"3"), b"\n" + LINES])
def test_a_changed_shortened_or_lost_file_is_named(run, content):
    (run / "attempts.jsonl").write_bytes(content)
    assert found(run) == ["attempts.jsonl was changed or shortened since the checkpoint of step 5"]
    (run / "attempts.jsonl").unlink()
    assert len(found(run)) == 1


def test_checkpoints_of_an_earlier_code_say_nothing(run):
    assert changes(run, [{"step": 5, "time": 1.0, "manifest": ""}]) == []
    assert changes(run, []) == []
