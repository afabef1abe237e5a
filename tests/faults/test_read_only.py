"""Folders that nothing can be written to: whoever only looks gets an answer, all others one line."""

import subprocess

import pytest

from ablations.report import main as report
from pipeline import launch
from pipeline.files import check_writable, publish_bytes
from pipeline.launching.slurm import commands, queue
from pipeline.launching.slurm.launches import FOLDER
from pipeline.runs.attempts import lease
from tests.faults.limits import refusal
from tests.pipeline.packed import pack_digits


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    (folder / "runs" / FOLDER).mkdir(parents=True)
    if subprocess.run(["mount", "--bind", "-o", "ro", folder, folder]).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


PLACES = {
    "records": lambda folder: check_writable(folder / "records", "paths.records"),
    "a file": lambda folder: publish_bytes(folder / "file", b"content"),
    "a run": lambda folder: lease(folder / "runs").__enter__(),
    "packing": lambda folder: pack_digits(folder / "set"),
    "the report": lambda folder: report(["--scale", "demo", "--results", str(folder / "results")]),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_writes_says_where_it_cannot(place, disk, capsys):
    said = refusal(lambda: PLACES[place](disk), capsys)
    assert str(disk) in said
    assert "Read-only file system" in said


def test_a_launch_is_refused_and_its_plan_and_status_are_not(disk, tmp_path, capsys):
    paths = (f"paths.runs={disk / 'runs'}", f"paths.records={tmp_path}", f"paths.data={tmp_path / 'data'}")
    words = ["ablation=se", "scale=demo", "cluster=local", *paths]
    for action in ("plan", "status"):
        assert launch.main([*words, f"action={action}"]) in (0, None)
    assert "is on a read-only file system" in refusal(lambda: launch.main(words), capsys)


def test_what_the_scheduler_says_is_used_where_it_cannot_be_kept(disk, monkeypatch):
    monkeypatch.setattr(commands, "listing", lambda: "")
    assert queue.look(disk / "runs").listed == {}
