"""Disks that are full: one line with the file, what it needs and what there is, and nothing half written."""

import contextlib
import re
import subprocess
from pathlib import Path

import pytest
import torch

from pipeline.files import append_row, publish_bytes
from pipeline.runs import records
from pipeline.runs.checkpoints import Checkpoints, write_files
from pipeline.runs.log import LineFile
from tests.faults.limits import refusal, tnt_refusal
from tests.pipeline.packed import pack_digits
from tnt.config import TNTConfig
from tnt.export import to_program
from tnt.feature_store import FeatureStore
from tnt.model import TNT
from tnt.weights.tensors import write_tensors

ROOM = 1 << 20
MORE = 4_000_000  # bytes


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder]).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def checkpoint(folder):
    parts = {"engine/weights.bin": memoryview(bytes(MORE))}
    with Checkpoints(folder) as checkpoints:
        checkpoints.publish(1, lambda directory: write_files(parts, directory), {})


def lines(folder):
    file = LineFile(folder / "metrics.jsonl")
    try:
        file.write("x" * MORE)
        file.sync()
    finally:
        file.close()


def features(folder):
    with FeatureStore(folder / "out.npz", {}, {"a": (MORE // 4,)}, "float32") as store:
        store.append({"a": TENSORS["a"][None]}, ["x.png"], [None], [None])


TENSORS = {"a": torch.zeros(MORE // 4)}
STORED = {
    "a whole file": lambda folder: publish_bytes(folder / "file", bytes(MORE)),
    "a line": lambda folder: append_row(folder / "attempts.jsonl", {"why": "x" * MORE}),
    "metrics": lines,
    "a checkpoint": checkpoint,
    "features": features,
}


@pytest.mark.parametrize("what", STORED)
def test_a_command_says_what_it_needs_and_what_there_is(what, disk, capsys):
    said = refusal(lambda: STORED[what](disk), capsys)
    assert re.search(r"No space left on device: needs [234],\d{3},\d{3} bytes, has [\d,]+\b", said)
    assert str(disk) in said
    assert not [path for path in disk.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_say_so_too_and_leave_nothing(suffix, disk, capsys):
    out = disk / f"weights.{suffix}"
    said = f"{out}: No space left on device: needs 4,000,000 bytes, has 1,048,576"
    assert said in refusal(lambda: write_tensors(TENSORS, {}, out), capsys)
    assert said in tnt_refusal(lambda: write_tensors(TENSORS, {}, out), capsys)
    assert list(disk.iterdir()) == []


@pytest.mark.slow
def test_an_export_says_so_too_and_leaves_nothing(disk):
    config = TNTConfig(image_size=32, depth=1)
    with pytest.raises(OSError, match=r"No space left on device: has [\d,]+: .*out\.pt2"):
        to_program(TNT(config), disk / "out.pt2")
    assert list(disk.iterdir()) == []


def test_a_record_says_so_too(disk, capsys):
    record = records.read(next(Path("results/shipped").glob("*.json")))
    fill(disk)
    said = refusal(lambda: records.publish(record, disk), capsys)
    assert re.search(r"No space left on device: needs [\d,]+ bytes, has 0\b", said)


def test_packing_says_so_before_it_begins(disk, capsys):
    said = " bytes free; the set needs up to "
    assert said in refusal(lambda: pack_digits(disk), capsys)


def fill(disk):
    with open(disk / "full", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
