"""Checkpoints: whole or absent under real kills and full disks."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.files import sha256
from pipeline.runs.checkpoints import (
    COMMITS,
    MANIFEST,
    PINNED,
    TEMPORARY,
    TRASH,
    Checkpoints,
    SaveFailed,
    commits,
    name_of,
    problem_with,
)
from tests.pipeline.runs.published import payload, publish, steps, writer
from tests.sources import ROOT


def test_what_is_published_is_what_comes_back(tmp_path):
    path = publish(Checkpoints(tmp_path), 40)
    found = Checkpoints(tmp_path).resume()
    assert (found.step, found.path, found.state) == (40, path, {"step": 40})
    assert (path / "engine/rank-0.bin").read_bytes() == payload(40)
    assert [line["manifest"] for line in commits(tmp_path)] == [sha256(path / MANIFEST)]


def test_a_run_without_checkpoints_begins_from_zero(tmp_path):
    assert Checkpoints(tmp_path / "nothing").resume() is None
    assert Checkpoints(tmp_path).resume() is None


def test_only_the_owner_can_read_it(tmp_path):
    root, umask = tmp_path / "checkpoints", os.umask(0)
    try:
        publish(Checkpoints(root), 1)
    finally:
        os.umask(umask)
    assert root.stat().st_mode & 0o777 == 0o700
    for path in root.rglob("*"):
        if not path.is_dir():
            assert path.stat().st_mode & 0o777 == 0o600, path


def test_newest_best_and_pinned_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step, best in [(1, 0), (2, 1), (3, 1), (4, 3), (5, 3), (6, 3)]:
        publish(checkpoints, step, best)
        if step == 2:
            (tmp_path / name_of(2) / PINNED).touch()
    assert steps(tmp_path) == [2, 3, 5, 6]
    assert [line["step"] for line in commits(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert not list(tmp_path.glob(TRASH + "*"))
    assert problem_with(tmp_path / name_of(2)) == ""


def test_the_oldest_of_each_part_of_the_run_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2, part=14 / 3)
    for step in range(1, 15):
        publish(checkpoints, step)
    assert steps(tmp_path) == [1, 5, 10, 13, 14]
    resumed = Checkpoints(tmp_path, keep=2, part=14 / 3)
    publish(resumed, 15)
    assert steps(tmp_path) == [1, 5, 10, 14, 15]


def test_the_same_step_twice_is_written_once(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    before = (publish(checkpoints, 7) / MANIFEST).stat().st_mtime_ns
    assert (publish(checkpoints, 7) / MANIFEST).stat().st_mtime_ns == before
    assert len(commits(tmp_path)) == 1


def test_a_damaged_one_is_written_again_at_its_step(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    path = publish(checkpoints, 7)
    (path / "weights-0.bin").unlink()
    assert problem_with(publish(checkpoints, 7)) == ""


def test_leftovers_of_a_crash_are_swept_away(tmp_path):
    publish(Checkpoints(tmp_path), 1)
    for name in (TEMPORARY + "step-00000002-x", TRASH + "step-00000000-x"):
        shutil.copytree(tmp_path / name_of(1), tmp_path / name)
    assert Checkpoints(tmp_path).resume().step == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [COMMITS, name_of(1)]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from pipeline.runs.checkpoints import Checkpoints
from pipeline.errors import WorkFailed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def write(directory):
    (directory / "weights.bin").write_bytes(bytes(1 << 20))
    return ["weights.bin"]
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.publish(1, write, {})
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, resource.RLIM_INFINITY))
try:
    checkpoints.publish(2, write, {})
except WorkFailed as error:
    print(error)
"""


def test_a_run_goes_on_while_its_checkpoint_is_written_and_learns_at_the_next_how_that_went(tmp_path):
    trained = threading.Event()

    def write(directory: Path) -> list[str]:
        assert trained.wait(20)
        return writer(1)(directory)

    def fail(directory: Path) -> list[str]:
        raise OSError(28, "No space left on device")

    with Checkpoints(tmp_path) as checkpoints:
        assert not checkpoints.finish()
        checkpoints.begin(1, write, {"step": 1})
        assert steps(tmp_path) == []
        trained.set()
        assert checkpoints.finish()
        assert steps(tmp_path) == [1]
        checkpoints.begin(2, fail, {"step": 2})
        with pytest.raises(SaveFailed, match=r"step 2 was not written .*No space left"):
            checkpoints.finish()


def test_what_was_begun_is_published_also_where_something_else_ends_the_run(tmp_path):
    def run() -> None:
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.begin(1, writer(1), {"step": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert Checkpoints(tmp_path).resume().step == 1


def test_a_file_that_cannot_be_written_whole_leaves_the_checkpoint_before(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, check=True
    )
    assert "the checkpoint of step 2 was not written (rank 0: File too large" in done.stdout
    assert steps(tmp_path) == [1]
    assert Checkpoints(tmp_path).resume().step == 1


def saver(root: Path, said: int) -> int:
    """A forked process that publishes one checkpoint after the other, as a run does, until it is killed."""
    pid = os.fork()
    if pid:
        return pid
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        checkpoints = Checkpoints(root)
        found = checkpoints.resume()
        step = found.step if found else 0
        os.write(said, b"ready\n")
        while True:
            step += 1
            checkpoints.begin(step, writer(step, size=30_000), {"step": step}, random.randrange(step))
            checkpoints.finish()
            os.write(said, f"{step}\n".encode())
    finally:
        os._exit(1)


def kills(root: Path, count: int) -> None:
    """What was acknowledged is there, what loads is whole, and there is always one."""
    publish(Checkpoints(root), 1, size=30_000)
    began = time.monotonic()
    for step in (2, 3, 4):
        publish(Checkpoints(root), step, size=30_000)
    save = (time.monotonic() - began) / 3
    source, unfinished, last = random.Random(time.time_ns()), 0, 4
    for _ in range(count):
        heard, said = os.pipe()
        pid = saver(root, said)
        os.close(said)
        with os.fdopen(heard) as lines:
            assert lines.readline() == "ready\n"
            time.sleep(source.uniform(0, 3 * save))  # the moment of the kill, not a wait for anything
            os.kill(pid, signal.SIGKILL)
            assert os.waitpid(pid, 0)[1] == signal.SIGKILL
            acknowledged = [last, *(int(line) for line in lines.read().split())]
        unfinished += any(root.glob(TEMPORARY + "*")) or any(root.glob(TRASH + "*"))
        found = Checkpoints(root).resume()
        assert found.passed_over == ()
        assert acknowledged[-1] <= found.step <= acknowledged[-1] + 1
        assert (found.path / "weights-0.bin").read_bytes() == payload(found.step, 30_000)
        assert len(steps(root)) >= 2
        last = found.step
    assert unfinished >= count // 10, "the kills did not fall into saves"


@pytest.mark.slow
def test_two_hundred_kills_inside_a_save(tmp_path):
    """By a process that is small, and so forks quickly."""
    program = f"from pathlib import Path; from {__name__} import kills; kills(Path({str(tmp_path)!r}), 200)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
