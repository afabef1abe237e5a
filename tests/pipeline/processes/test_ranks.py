"""A rank that waits for a dead or stopped one ends with one line; a busy one is waited for."""

import signal
import subprocess

import pytest

from tests.pipeline.ranks import DEADLINE, start_ranks
from tests.pipeline.small_runs import end_of

# Every rank says that it is up and then does what it is told to. DeepSpeed makes a group as `theirs` is made.
RANK = """
import ctypes, sys
import torch
import torch.distributed as dist
from pipeline.errors import WorkFailed, command
from pipeline.processes.place import find_place
from pipeline.processes.ranks import joined

def main(argv):
    with joined(find_place(), torch.device("cpu"), timeout=600) as ranks:
        theirs = dist.new_group()
        ones = torch.ones(9)
        dist.all_reduce(ones, group=theirs)
        if PRIVATE:
            del dist.set_timeout
        ranks.wait_at_most(LIMIT)
        print("up", flush=True)
        what = sys.stdin.readline().strip()
        if what == "fail":
            raise WorkFailed("one rank alone")
        if what == "be busy":
            ctypes.PyDLL(None).sleep(2)  # holds the interpreter's lock: no thread of Python runs
        if what == "theirs":
            dist.all_reduce(ones, group=theirs)
        elif what == "default":
            dist.all_reduce(ones)
        else:
            ranks.gather(None)
    print("done", flush=True)

command(main, [])
"""


def start(world: int, private: bool = False, limit: int = 3) -> list[subprocess.Popen]:
    script = RANK.replace("PRIVATE", str(private)).replace("LIMIT", str(limit))
    started = start_ranks(world, ["-c", script], stdin=subprocess.PIPE)
    for process in started:
        assert process.stdout.readline() == "up\n"
    return started


def tell(process: subprocess.Popen, what: str) -> None:
    process.stdin.write(what + "\n")
    process.stdin.flush()


def ends_with_one_line(process: subprocess.Popen) -> str:
    status, err = end_of(process)
    assert status == 1, err
    said = [line for line in err.splitlines() if "another process of this run is gone" in line]
    assert said == err.splitlines()[-1:], err
    assert "Traceback" not in err
    return said[0]


@pytest.mark.parametrize(("world", "victim"), [(2, 0), (2, 1), (3, 1)])
def test_a_dead_rank_ends_the_others_at_once(world, victim):
    processes = start(world)
    for process in processes:
        if process is not processes[victim]:
            tell(process, "gather")
    processes[victim].send_signal(signal.SIGKILL)
    for process in processes:
        if process is not processes[victim]:
            assert "Timed out" not in ends_with_one_line(process)


@pytest.mark.slow
@pytest.mark.parametrize("group", ["gather", "default", "theirs"])
@pytest.mark.parametrize("private", [False, True], ids=["as of torch 2.15", "as of torch 2.11"])
def test_a_stopped_rank_ends_the_others_after_the_time_out_in_every_group(group, private):
    processes = start(2, private)
    processes[1].send_signal(signal.SIGSTOP)
    tell(processes[0], group)
    assert "Timed out waiting 3000ms" in ends_with_one_line(processes[0])


def test_a_rank_that_fails_alone_ends_the_others():
    processes = start(2)
    tell(processes[0], "gather")
    tell(processes[1], "fail")
    assert end_of(processes[1]) == (1, "error: one rank alone\n")
    ends_with_one_line(processes[0])


def test_what_all_ranks_raise_is_said_by_all():
    processes = start(2)
    for process in processes:
        tell(process, "fail")
    assert [end_of(process) for process in processes] == 2 * [(1, "error: one rank alone\n")]


def test_a_rank_that_is_busy_for_less_than_the_time_out_is_waited_for():
    processes = start(2, limit=60)
    tell(processes[0], "gather")
    tell(processes[1], "be busy")
    for process in processes:
        out, err = process.communicate(timeout=DEADLINE)
        assert (process.returncode, out) == (0, "done\n"), err
