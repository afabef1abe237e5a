"""What is found wrong with a node before a run starts there."""

import json
import subprocess
import sys

import pytest
import torch

from pipeline.processes import node_check
from pipeline.processes.node_check import verdict
from tests.pipeline.ranks import ROOT, environment

NODES = ("n1", "n2", "n3")


def lines(**clocks):
    return [{"node": node, "problems": []} for node in NODES] + [
        {"node": node, "met": met} for node, met in clocks.items()
    ]


@pytest.mark.parametrize(
    ("said", "bad"),
    [
        (lines(n1=100.0, n2=100.1, n3=100.2), {}),
        (lines(n1=100.0, n2=100.1), {"n3": "it did not meet the others"}),
        (lines(n1=100.0, n2=160.0, n3=100.2), {"n2": "its clock is +60 s off"}),
        ([{"node": "n1", "problems": []}, {"node": "n3", "problems": []}], {"n2": "it did not answer"}),
        ([*lines()[:2], {"node": "n3", "problems": ["a", "b"]}], {"n3": "a; b"}),
        ([], dict.fromkeys(NODES, "it did not answer")),
    ],
)
def test_the_node_that_is_not_sound_is_named(said, bad):
    assert verdict(said, NODES) == bad


def test_a_disk_that_cannot_be_written_and_a_product_that_is_wrong_are_problems(tmp_path, monkeypatch):
    assert node_check.disk(tmp_path) == []
    assert node_check.disk(tmp_path / "gone") == [
        f"{tmp_path / 'gone'} cannot be written (No such file or directory)"
    ]
    assert node_check.arithmetic(torch.device("cpu")) == []
    monkeypatch.setattr(torch, "ones", lambda *size, device: torch.full(size, 1.5))
    assert node_check.arithmetic(torch.device("cpu")) == ["cpu multiplies wrongly"]


def test_a_sound_node_says_so(tmp_path):
    command = [sys.executable, "-m", "pipeline.processes.node_check", "cpu", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["problems"] == []
    assert verdict([first, second], [first["node"]]) == {}
