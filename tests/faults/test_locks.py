"""A file system without locks, said as what it is by everything that takes one."""

import errno
import fcntl
import os

import pytest

from pipeline.data import dataset
from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.digits import digits
from pipeline.data.settings import DataConfig
from pipeline.launching.slurm.launches import submitting
from pipeline.runs.attempts import holder, lease
from tests.faults.limits import refusal, tnt_refusal
from tnt.feature_store import FeatureStore


@pytest.fixture(autouse=True, params=["ENOSYS", "ENOLCK"])
def no_locks(request, monkeypatch):
    """No such file system is at hand: the kernel's answer is played."""
    number = getattr(errno, request.param)

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    for name in ("lockf", "flock", "fcntl"):
        monkeypatch.setattr(fcntl, name, refuse)


def entered(block):
    with block:
        pass


def status(folder):
    (folder / "lease").touch()
    holder(folder)


PLACES = {
    "a run": lambda folder: entered(lease(folder)),
    "a run's status": status,
    "a launch": lambda folder: entered(submitting(folder)),
    "packing": lambda folder: make(digits(), folder, Packing(workers=1)),
    "a run's own data": lambda folder: dataset.prepare(DataConfig(name="digits", root=str(folder))),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_command_says_that_there_are_no_locks(place, tmp_path, capsys):
    said = refusal(lambda: PLACES[place](tmp_path), capsys)
    assert f"{tmp_path}" in said
    assert "is on a file system without locks" in said


def test_features_say_that_there_are_no_locks(tmp_path, capsys):
    store = FeatureStore(tmp_path / "out.npz", {}, {"final.class": (3,)}, "float32")
    assert "without locks" in tnt_refusal(lambda: entered(store), capsys)
