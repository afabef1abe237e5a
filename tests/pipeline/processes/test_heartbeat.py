"""A dead or frozen rank ends the whole run soon, with a line that says which; a healthy one is left alone."""

import signal
import subprocess

import pytest

from pipeline.processes.heartbeat import LOST
from tests.pipeline.ranks import DEADLINE, start_ranks

# Every rank says that it is up, then does what it is told to; the others wait in a collective.
RANK = """
import os, sys, threading
import torch
from pipeline.processes.place import find_place
from pipeline.processes.ranks import joined
from pipeline.errors import WorkFailed
from pipeline.processes.heartbeat import Vigil
place = find_place()
with joined(place, torch.device("cpu"), timeout=600) as ranks:
    with Vigil(ranks, silence=SILENCE):
        print(os.getpid(), flush=True)
        what = sys.stdin.readline().strip()
        if what == "error":
            raise RuntimeError("a fault of ours")
        if what == "failure":
            raise WorkFailed("one rank alone")
        if what == "wait":
            threading.Event().wait()  # as in a collective of NCCL, which never learns of it
        ranks.gather(None)
print("done", flush=True)
"""


@pytest.fixture
def ranks():
    def start(world: int, silence: float = 300) -> list[subprocess.Popen]:
        script = RANK.replace("SILENCE", str(silence))
        started = start_ranks(world, ["-c", script], stdin=subprocess.PIPE)
        for process in started:
            assert process.stdout.readline()
        return started

    return start


def tell(process: subprocess.Popen, what: str) -> None:
    process.stdin.write(what + "\n")
    process.stdin.flush()


def ending(process: subprocess.Popen) -> tuple[int, str]:
    _, err = process.communicate(timeout=DEADLINE)
    return process.returncode, err


@pytest.mark.parametrize(
    ("world", "victim", "waiting"), [(3, 1, "wait"), (2, 0, "wait"), (2, 1, "collective")]
)
def test_a_dead_rank_ends_the_others(ranks, world, victim, waiting):
    processes = ranks(world)
    for process in processes:
        if process is not processes[victim]:
            tell(process, waiting)
    processes[victim].send_signal(signal.SIGKILL)
    for rank, process in enumerate(processes):
        if rank != victim:
            status, err = ending(process)
            assert status == LOST, err
            assert f"error: rank {victim} is gone; starting the run again continues it" in err


@pytest.mark.parametrize(("world", "victim"), [(2, 0), (3, 1)])
def test_a_frozen_rank_ends_the_others(ranks, world, victim):
    processes = ranks(world, silence=4)
    for process in processes:
        tell(process, "wait")
    processes[victim].send_signal(signal.SIGSTOP)
    for rank, process in enumerate(processes):
        if rank != victim:
            status, err = ending(process)
            assert status == LOST, err
            assert f"rank {victim} has given no sign of life for 4 s" in err


@pytest.mark.parametrize("how", ["error", "failure"])
def test_a_rank_that_fails_alone_ends_the_others(ranks, how):
    processes = ranks(2)
    tell(processes[0], "wait")
    tell(processes[1], how)
    status, err = ending(processes[0])
    assert status == LOST, err
    assert "rank 1 failed" in err or "rank 1 is gone" in err
    status, err = ending(processes[1])
    assert status == 1, err
    assert "a fault of ours" in err or "one rank alone" in err


def test_what_all_ranks_raise_is_raised_by_all(ranks):
    processes = ranks(2)
    for process in processes:
        tell(process, "failure")
    for process in processes:
        status, err = ending(process)
        assert status == 1, err
        assert "one rank alone" in err


def test_ranks_that_end_well_end_in_peace(ranks):
    processes = ranks(2)
    for process in processes:
        tell(process, "go")
    for process in processes:
        out, err = process.communicate(timeout=DEADLINE)
        assert (process.returncode, out) == (0, "done\n"), err


def test_a_job_that_was_stopped_as_a_whole_goes_on(ranks):
    """Stopped for longer than the silence that would end it."""
    processes = ranks(2, silence=2)
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):  # the time that passes is the test's subject
        processes[0].wait(timeout=4)
    for process in processes:
        process.send_signal(signal.SIGCONT)
    for process in processes:
        tell(process, "go")
    for process in processes:
        out, err = process.communicate(timeout=DEADLINE)
        assert (process.returncode, out) == (0, "done\n"), err
