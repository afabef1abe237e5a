"""One trainer at a time, a line for each start, and an end to starts that bring nothing."""

import json
import os
import subprocess
import sys

import pytest

from pipeline.errors import UserError, WorkFailed
from pipeline.runs.attempts import Attempt, attempts, begin, fruitless, lease, register
from pipeline.runs.directory import ATTEMPTS, RUN
from tests.pipeline.ranks import DEADLINE, environment

HOLD = """
import os, sys, time
from pathlib import Path
from pipeline.runs.attempts import lease
with lease(Path(sys.argv[1])):
    child = os.fork()
    if not child:
        print("held", flush=True)
        sys.stdin.read()  # a worker that outlives its trainer
        os._exit(0)
    time.sleep(600)
"""


def attempt(step: int) -> Attempt:
    return Attempt(step, 1.5, 2, ("n1", "n2"), "4711", 1)


def test_a_run_is_held_by_one_process_and_given_back_by_its_death(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(SLURM_JOB_ID="4711"),
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(WorkFailed, match=f"process {holder.pid} on .*, job 4711"), lease(tmp_path):
            pass
        holder.kill()
        holder.wait(DEADLINE)
        with lease(tmp_path):  # though its child is still alive
            assert f"process {os.getpid()}" in (tmp_path / "lease").read_text()
    finally:
        holder.kill()
        holder.communicate()


def test_starts_come_back_as_they_were_and_torn_lines_do_not(tmp_path):
    assert attempts(tmp_path) == []
    begin(tmp_path, attempt(0))
    with open(tmp_path / ATTEMPTS, "a") as file:
        file.write('{"step": 3, "ti\n{"step": 1}\n')
    begin(tmp_path, attempt(7))
    assert attempts(tmp_path) == [attempt(0), attempt(7)]


def test_three_starts_at_one_step_are_enough(tmp_path):
    for step in (0, 5, 5):
        begin(tmp_path, attempt(step))
    assert not fruitless(tmp_path, 5)
    begin(tmp_path, attempt(5))
    assert fruitless(tmp_path, 5)
    assert not fruitless(tmp_path, 6)  # this one came further


def test_other_data_under_the_same_path_are_refused_while_a_run_on_the_old_ones_is_unfinished(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for directory in (old, new):
        directory.mkdir()
    before, after = {"root": "/data", "train": "10 samples"}, {"root": "/data", "train": "9 samples"}
    register(old, "science", before)
    register(old, "science", before)
    with pytest.raises(UserError, match=r"since run old .*train: 10 samples → 9 samples.*remove .*old"):
        register(new, "science", after)
    assert not (new / RUN).exists()
    register(new, "other science", after)
    (new / RUN).unlink()
    (old / "model.safetensors").touch()  # finished: other data are another run
    register(new, "science", after)
    assert json.loads((new / RUN).read_text())["data"] == after


GIVE_UP = """
import os, signal, sys
from pipeline.processes.place import Place
from pipeline.processes.interrupt import Interrupt
from pipeline.train import give_up
with Interrupt() as interrupt:
    interrupt.otherwise(0, lambda: give_up(Place("slurm", job="4711"), interrupt))
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    while True:
        signal.pause()
"""


# After SIGTERM Slurm is asked whether it was a preemption; this one says nothing of that.
@pytest.mark.parametrize(
    ("name", "asked"), [("SIGUSR1", "requeue 4711\n"), ("SIGTERM", "--oneliner show job 4711\n")]
)
def test_where_no_step_ends_in_time_the_job_goes_back_with_its_last_checkpoint(tmp_path, name, asked):
    log, scontrol = tmp_path / "log", tmp_path / "scontrol"
    log.touch()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {log}\n')
    scontrol.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", GIVE_UP, name],
        env=environment(PATH=f"{tmp_path}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 1
    assert "the last checkpoint is where the run goes on" in done.stderr
    assert log.read_text() == asked
