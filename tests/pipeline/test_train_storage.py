"""Real runs whose storage fails: files too large, a full disk, damaged checkpoints."""

import contextlib
import re
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.pipeline.ranks import DEADLINE, ROOT, end_all, environment
from tests.pipeline.small_runs import ALONE, TWO, Left, Place, end_of

SMALL_FILES = (300_000, resource.RLIM_INFINITY)  # bytes: logs fit, a checkpoint does not


@pytest.fixture
def mounted(tmp_path):
    """Mount a disk of a size, or change that of the mounted one."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(size: str, *more: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *more)), "tmpfs", disk]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small disk cannot be mounted here")
        return disk

    yield mount
    end_all()
    subprocess.run(["umount", disk], capture_output=True)


@pytest.mark.slow
@ALONE
def test_files_that_stay_too_large_end_the_run_and_leave_the_checkpoints_before(place, gold):
    processes = place.start("engine.failed_saves=2")
    place.reaches(3, processes)
    resource.prlimit(processes[0].pid, resource.RLIMIT_FSIZE, SMALL_FILES)
    status, err = end_of(processes[0])
    assert status == 1, err
    before = place.steps()[-1]
    assert f"the checkpoint of step {before + 1} was not written" in place.log()
    assert "training goes on (1 of 2 failures in a row)" in place.log()
    assert err.splitlines()[-1].startswith(f"error: the checkpoint of step {before + 2} was not written")
    assert "Traceback" not in err
    assert Left.by(place.train()) == gold()


@pytest.mark.slow
@TWO
def test_a_rank_that_cannot_save_for_a_while_ends_no_training(place, gold):
    settings = ("engine.zero_stage=2", "engine.failed_saves=1000")
    processes = place.start(*settings, world=2)
    place.reaches(3, processes)
    resource.prlimit(processes[1].pid, resource.RLIMIT_FSIZE, SMALL_FILES)
    assert any("training goes on" in line for line in processes[0].stderr)
    resource.prlimit(
        processes[1].pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    for process in processes:
        status, err = end_of(process)
        assert status == 0, err
    assert Left.by(place.directory) == gold(2, 2)
    assert re.fullmatch(r"the checkpoint of step \d+ was not written", place.record["events"][0])
    assert not list(place.directory.glob("checkpoints/.*"))


@pytest.mark.slow
@ALONE
def test_a_disk_that_is_full_for_a_while_ends_no_training(mounted, shards, gold):
    """Logs and curves are on it too: its lines are written when there is room again."""
    disk = mounted("128m")  # it is full long before the run is over
    place = Place(disk, shards)
    [process] = place.start("engine.failed_saves=1000", "logging.tensorboard=true")
    place.reaches(3, [process])
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stderr), daemon=True)
    reader.start()
    with open(disk / "full", "wb", buffering=0) as filler:
        while not any("training goes on" in line for line in said):
            assert process.poll() is None, said
            with contextlib.suppress(OSError):
                while True:  # also what a checkpoint that goes away sets free
                    filler.write(bytes(65536))
            time.sleep(0.01)  # between two looks
    (disk / "full").unlink()
    reader.join(DEADLINE)
    assert process.wait(DEADLINE) == 0, said
    assert Left.by(place.directory) == gold()
    assert "was not written" in place.record["events"][0]
    assert "training goes on" in place.log()


@pytest.mark.slow
@ALONE
def test_a_run_whose_disk_was_too_small_goes_on_in_more_room(mounted, shards, gold):
    place = Place(mounted("4m"), shards)  # two checkpoints, but not the weights beside them
    status, err = end_of(place.start("engine.checkpoint_minutes=0")[0])
    assert status == 1
    needs = r"error: No space left on device: needs [\d,]+ bytes, has [\d,]+: \S+model\.safetensors"
    assert re.fullmatch(needs, err.splitlines()[-1])
    assert "Traceback" not in err
    mounted("1g", "remount")
    assert Left.by(place.train()) == gold()


@pytest.mark.slow
def test_records_that_cannot_be_written_are_said_before_it_trains(tmp_path, shards, mounted):
    place = Place(tmp_path, shards)
    (tmp_path / "records").symlink_to(mounted("1m", "ro"))
    status, err = end_of(place.start()[0])
    assert status == 1
    assert re.fullmatch(r"error: paths\.records=\S+ cannot be written to: Read-only file system\n", err)


@pytest.mark.nightly
@ALONE
def test_64_descriptors_and_64_kb_of_shared_memory_are_enough(place, gold):
    small = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && ulimit -n 64 && exec "$@"'
    alone = ("unshare", "--mount", "sh", "-c", small, "sh")
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("a small /dev/shm cannot be mounted here")
    settings = (*place.settings, "engine.checkpoint_minutes=0", "data.loading.workers=2")
    command = [*alone, sys.executable, ROOT / "pipeline/train.py", *settings]
    subprocess.run(command, env=environment(), check=True, timeout=DEADLINE, capture_output=True)
    assert Left.by(place.directory) == gold()


@pytest.mark.slow
@ALONE
def test_damaged_checkpoints_are_passed_over_and_reported(place, gold):
    processes = place.start()
    place.reaches(5, processes)
    processes[0].kill()
    processes[0].communicate()
    *_, before, newest = sorted(place.directory.glob("checkpoints/step-*"))
    weights = next(newest.glob("engine/*"))
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    metrics = place.directory / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes().replace(b'"step": 2,', b'"step": 1,'))
    attempts = place.directory / "attempts.jsonl"
    attempts.write_bytes(attempts.read_bytes().replace(b'"world"', b'"worlD"'))
    assert Left.by(place.train()) == gold()
    said = f"checkpoint {newest.name}: engine/{weights.name} has another SHA-256"
    assert said in place.log()
    assert said in place.record["events"][0]
    assert "attempts.jsonl was changed or shortened" in place.record["events"][1]
    assert "metrics.jsonl was not as the checkpoint" in place.record["events"][2]
    assert f"goes on after step {int(before.name[5:])} " in place.log()


@pytest.mark.slow
def test_without_a_readable_checkpoint_it_does_not_begin_from_zero(place):
    processes = place.start()
    place.reaches(2, processes)
    processes[0].kill()
    processes[0].communicate()
    for path in place.directory.glob("checkpoints/step-*/MANIFEST.json"):
        path.write_text("{}")
    metrics = (place.directory / "metrics.jsonl").read_bytes()
    status, err = end_of(place.start()[0])
    assert status == 1
    assert err.startswith("error: ")
    assert "none of them can be read" in err
    assert (place.directory / "metrics.jsonl").read_bytes() == metrics
