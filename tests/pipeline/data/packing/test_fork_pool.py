import os
import signal

import pytest

from pipeline.data.packing.fork_pool import run_forked
from pipeline.errors import UserError, WorkFailed


def run(work, tasks, workers=2):
    counted = []
    results = run_forked(work, tasks, workers, counted.append)
    return results, sum(counted)


@pytest.mark.slow
def test_every_task_is_done_once_and_reported():
    def work(task, advance):
        advance(task)
        return task * task

    results, counted = run(work, list(range(20)), workers=3)
    assert results == [n * n for n in range(20)]
    assert counted == sum(range(20))


def test_several_processes_share_the_tasks():
    barrier = os.pipe()

    def work(task, advance):
        # The first waits for the second: both must be running at once.
        if task == 0:
            return os.read(barrier[0], 1)
        return os.write(barrier[1], b"x")

    assert run(work, [0, 1])[0] == [b"x", 1]


def test_a_users_error_in_a_worker_is_the_commands_error():
    def work(task, advance):
        raise UserError(f"bad {task}")

    with pytest.raises(UserError, match="bad one"):
        run(work, ["one"])


def test_a_full_disk_is_one_line_and_a_fault_of_ours_keeps_its_trace():
    def full(task, advance):
        raise OSError(28, "No space left on device", "a.tar")

    with pytest.raises(WorkFailed, match=r"No space left on device: a\.tar"):
        run(full, [1])

    def broken(task, advance):
        return 1 / 0

    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        run(broken, [1])


def test_a_worker_that_dies_is_an_error_with_its_task():
    def work(task, advance):
        if task == "third.tar":
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkFailed, match=r"signal 9, out of memory\?\) during third\.tar"):
        run(work, ["first.tar", "second.tar", "third.tar", "fourth.tar"])
