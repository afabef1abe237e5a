"""Limits of the machine: memory that may not be taken, and a clock that is set back."""

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.runs import log
from tests.faults.limits import refusal, tnt_refusal

ROOM = 1 << 28  # bytes that may still be taken
REFUSED = {
    "Python": lambda: bytearray(ROOM * 16),
    "numpy": lambda: np.ones(ROOM * 2),
    "torch": lambda: torch.ones(ROOM * 4),
    "the loader of a library, in its words": lambda: _raise(
        ImportError("x.so: failed to map segment from …")
    ),
}


def _raise(error: Exception) -> None:
    raise error


@pytest.fixture
def little_memory() -> Iterator[None]:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line]
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(line.split()[1]) * 1024 + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("who", REFUSED)
def test_memory_that_a_limit_refuses_is_told_in_one_line(who, little_memory, capsys):
    assert "out of memory" in refusal(REFUSED[who], capsys)
    assert "out of memory" in tnt_refusal(REFUSED[who], capsys)


def test_a_fault_of_ours_is_no_lack_of_memory(capsys):
    def fail():
        raise RuntimeError("what nobody expected")

    with pytest.raises(RuntimeError, match="nobody expected"):
        refusal(fail, capsys)


def test_hours_are_never_negative_where_the_clock_is_set_back(tmp_path):
    rows = [
        {"step": 0, "time": 1000.0, "start": 2.0},
        {"step": 1, "time": 4600.0, "images_per_second": 10.0},
        {"step": 2, "time": 100.0, "images_per_second": 10.0},  # it was set back
        {"step": 3, "time": 3700.0, "images_per_second": 10.0},
        {"step": 3, "time": 50.0, "start": 1.0},  # another attempt, by another machine's clock
        {"step": 4, "time": 3650.0, "images_per_second": 10.0},
    ]
    text = "".join(f"{row}\n".replace("'", '"') for row in rows)
    (tmp_path / "timing.jsonl").write_text(text)
    spent = log.spent(tmp_path)
    assert (spent.device_hours, spent.attempts) == (5.0, 2)
