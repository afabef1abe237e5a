"""Workers that die, hang, meet a fault or get signals that are not for them."""

import itertools
import os
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.loading.buffers import TICKET
from pipeline.data.loading.loader import Loading, TrainLoader
from pipeline.data.loading.sampler import Sampling
from pipeline.errors import WorkFailed
from tests.leases import Leases
from tests.pipeline.packed import SMALL, copied, digests
from tests.pipeline.ranks import environment

SAMPLING = Sampling(seed=5, global_batch=192, repeats=3)


@pytest.fixture
def blocked(digits, tmp_path):
    """A set in which opening a shard does not end."""
    spare = copied(digits, tmp_path / "copy")

    def block():
        spare.__dict__["leases"] = Leases(map(spare.path, range(len(spare.shards))))

    spare.__dict__["block"] = block
    yield spare
    spare.__dict__["leases"].let_go()


def first_batch_while(loader, act):
    """Ask for a batch, and `act` once a worker is at it."""
    with ThreadPoolExecutor(1) as asking:
        batch = asking.submit(next, iter(loader))
        while not ((loader._tasks.pids and loader._buffers.board[:, TICKET].any()) or batch.done()):
            os.sched_yield()
        act()
        return batch.result(60)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_named_with_its_shard(blocked):
    with TrainLoader(blocked, SAMPLING, SMALL, loading=Loading(workers=1, timeout=20)) as loader:
        blocked.block()
        with pytest.raises(
            WorkFailed, match=r"killed by SIGKILL: out of memory\? over sample .* of digits-train"
        ):
            first_batch_while(loader, lambda: os.kill(loader._tasks.pids[0], signal.SIGKILL))


@pytest.mark.slow
def test_a_worker_that_hangs_in_a_read_is_named_with_its_shard(blocked):
    with TrainLoader(blocked, SAMPLING, SMALL, loading=Loading(workers=1, timeout=0.3)) as loader:
        blocked.block()
        with pytest.raises(
            WorkFailed, match=r"worker 0 \(process \d+\) has hung .* over sample .* of digits-train"
        ):
            next(iter(loader))


@pytest.mark.slow
def test_a_worker_that_is_stopped_is_named_with_its_shard(blocked):
    """Stopped while it opens a shard; the shard comes back, so that nothing but the stop holds it."""

    def stop():
        os.kill(loader._tasks.pids[0], signal.SIGSTOP)
        blocked.leases.let_go()

    with TrainLoader(blocked, SAMPLING, SMALL, loading=Loading(workers=1, timeout=0.5)) as loader:
        blocked.block()
        with pytest.raises(WorkFailed, match=r"has hung .* over sample .* of digits-train"):
            first_batch_while(loader, stop)


@pytest.mark.slow
def test_workers_that_are_all_stopped_before_they_take_a_task_are_noticed(digits):
    with TrainLoader(digits, SAMPLING, SMALL, loading=Loading(workers=1, timeout=0.3)) as loader:
        batches = iter(loader)
        next(batches)
        os.kill(loader._tasks.pids[0], signal.SIGSTOP)
        with pytest.raises(WorkFailed, match=r"no worker has taken a task|has hung"):
            list(batches)


@pytest.mark.slow
def test_a_fault_of_ours_comes_with_its_stack_trace(digits):
    with TrainLoader(digits, SAMPLING, SMALL, loading=Loading(workers=1)) as loader:
        plain = loader._tasks.submit
        loader._tasks.submit = lambda task: plain(task._replace(place=task.place + 10_000))
        with pytest.raises(WorkFailed, match=r"met a fault:\nTraceback[^$]*IndexError[^$]*over sample"):
            next(iter(loader))


def test_workers_that_cannot_start_are_an_error_and_not_a_wait(digits, monkeypatch):
    monkeypatch.setattr("pipeline.data.loading.pool.ENVIRONMENT", {"PYTHONHOME": "/nowhere"})
    with (
        TrainLoader(digits, SAMPLING, SMALL, loading=Loading(workers=1)) as loader,
        pytest.raises(WorkFailed, match="ended together"),
    ):
        next(iter(loader))


@pytest.mark.slow
def test_a_workers_proportional_share_of_memory_stays_below_130_mb(digits):
    """With batches of the size that ImageNet's training has: 128 images of 224² pixels, six of them."""
    sampling = Sampling(seed=5, global_batch=128)

    def shares():
        for _ in range(10):
            next(batches)
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in loader._tasks.pids]
        return [int(rollup.split("Pss:")[1].split()[0]) for rollup in rollups]

    with TrainLoader(digits, sampling, Augmentation(), loading=Loading(workers=8)) as loader:
        batches = itertools.chain.from_iterable(itertools.repeat(loader))
        early, late = shares(), shares()
    assert len(early) == len(late) == 8
    assert max(early + late) < 130_000  # kB
    assert sum(late) - sum(early) < 8 * 5_000


@pytest.mark.slow
def test_signals_to_the_whole_job_do_not_stop_the_workers_and_closing_ends_even_a_stopped_one(digits):
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with TrainLoader(digits, SAMPLING, SMALL, loading=Loading(workers=0)) as loader:
        gold = digests(loader)
    with TrainLoader(
        digits, SAMPLING, SMALL, micro_batch=64, loading=Loading(workers=2, batches=2)
    ) as loader:
        # While they start, and while they work.
        for number in numbers:
            loader._tasks._process.send_signal(number)
        found = {}
        for batch in loader:
            for pid in (*loader._tasks.pids, loader._tasks._process.pid):
                os.kill(pid, numbers[batch.step % len(numbers)])
            found.setdefault((batch.epoch, batch.step), []).extend(loader.manifest.key[batch.sample].tolist())
        ends = [os.pidfd_open(pid) for pid in loader._tasks.pids]
        os.kill(loader._tasks.pids[1], signal.SIGSTOP)
    for end in ends:
        assert select.select([end], [], [], 30)[0], "a worker outlived its loader"
    assert found == {at: [key for key, _ in step.values()] for at, step in gold.items()}


@pytest.mark.slow
def test_a_trainer_thread_may_start_the_workers_and_end(digits):
    """The kernel's tie between a process and its parent is one to the thread that forked it."""
    made = []
    maker = threading.Thread(
        target=lambda: made.append(TrainLoader(digits, SAMPLING, SMALL, loading=Loading(workers=1)))
    )
    maker.start()
    maker.join()
    with made[0] as loader:
        assert sum(len(batch.sample) for batch in loader) == loader.steps_per_epoch * 192


@pytest.mark.slow
def test_a_worker_keeps_the_buffers_of_its_images():
    """Without `prepare` each of these arrays is had from the kernel again, at 146 page faults."""
    check = """
import resource
from pathlib import Path
import numpy as np
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.loading.rendering import Rendering
from pipeline.data.loading.worker import prepare
prepare(Rendering(Path(), (), Augmentation(image_size=32)))
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        buffers = [np.ones(600_000, np.uint8) for _ in range(4)]
        del buffers
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
    out = subprocess.check_output([sys.executable, "-c", check], text=True, env=environment())
    assert int(out) < 200  # one an array; they are 200
