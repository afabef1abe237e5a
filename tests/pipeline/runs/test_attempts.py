"""One trainer at a time, how each attempt began and ended, and an end to attempts that bring nothing."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError, WorkFailed
from pipeline.processes.place import Place
from pipeline.runs.attempts import (
    AGAIN,
    FINISHED,
    STOPPED,
    Attempt,
    AttemptLog,
    HeldByEarlierStart,
    Lease,
    attempts,
    fruitless,
    holder,
    last_end,
    lease,
    next_number,
    register,
)
from pipeline.runs.directory import ATTEMPTS, RUN
from tests.pipeline.ranks import DEADLINE, environment

HOLD = """
import os, sys, time
from pathlib import Path
from pipeline.runs.attempts import lease
with lease(Path(sys.argv[1]), "4711_3"):
    child = os.fork()
    if not child:
        print("held", flush=True)
        sys.stdin.read()  # a worker that outlives its trainer
        os._exit(0)
    time.sleep(600)
"""


def begin(directory: Path, step: int, number: int) -> AttemptLog:
    log = AttemptLog(directory, number)
    log.step = step
    log.begin(2, ("n1", "n2"), Place("slurm", job="4711", restarts=1))
    return log


def test_a_run_is_held_by_one_process_and_given_back_by_its_death(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    try:
        assert process.stdout.readline() == b"held\n"
        said = f"process {process.pid} on .*, job 4711_3"
        with pytest.raises(WorkFailed, match=said) as refused, lease(tmp_path, "4711_4"):
            pass
        assert not isinstance(refused.value, HeldByEarlierStart)
        with pytest.raises(HeldByEarlierStart, match=said), lease(tmp_path, "4711_3"):
            pass
        process.kill()
        process.wait(DEADLINE)
        with lease(tmp_path):  # though its child is still alive
            assert holder(tmp_path) == Lease(os.getpid(), socket.gethostname())
            assert holder(tmp_path) == Lease(os.getpid(), socket.gethostname())  # it did not lose it
        assert holder(tmp_path) is None
    finally:
        process.kill()
        process.communicate()


OLD = '{"step": 3, "time": 1.5, "world": 2, "hosts": ["n1"], "job": "17", "restarts": 0}\n'
DAMAGED = (
    '{"step": 3, "ti\n{"step": 1}\n',
    OLD.replace('["n1"]', "null"),
    OLD.replace('"step": 3', '"step": NaN'),
    '{"number": 9, "end": "failed", "step": null, "time": 1.5, "reason": ""}\n',
)


def test_attempts_come_back_as_they_were_and_damaged_lines_do_not(tmp_path):
    assert attempts(tmp_path) == []
    assert (last_end(tmp_path), next_number(tmp_path)) == ("", 1)
    (tmp_path / ATTEMPTS).write_text(OLD)  # of a version that noted no ends
    old = Attempt(3, 1.5, 2, ("n1",), "17", 0)
    assert attempts(tmp_path) == [old]
    assert "older version" in last_end(tmp_path)
    log = begin(tmp_path, 7, next_number(tmp_path))
    [_, new] = attempts(tmp_path)
    assert new == Attempt(7, new.time, 2, ("n1", "n2"), "4711", 1, number=2)
    with open(tmp_path / ATTEMPTS, "a") as file:
        file.write("".join(DAMAGED))
    assert (attempts(tmp_path), next_number(tmp_path)) == ([old, new], 3)
    log.step = 40
    log.end(FINISHED)
    assert last_end(tmp_path) == "finished at step 40"
    assert last_end(tmp_path, first=new.number + 1) == ""


def test_an_attempt_that_failed_before_its_first_step_is_not_one_of_those_that_began(tmp_path):
    begin(tmp_path, 7, 1)
    AttemptLog(tmp_path, 2).fail("no room")
    assert len(attempts(tmp_path)) == 1
    assert (last_end(tmp_path), next_number(tmp_path)) == ("no room", 3)


def test_three_starts_at_one_step_are_enough(tmp_path):
    for number, step in enumerate((0, 5, 5), 1):
        begin(tmp_path, step, number)
    assert not fruitless(tmp_path, 5)
    begin(tmp_path, 5, 4)
    assert fruitless(tmp_path, 5)
    assert not fruitless(tmp_path, 6)  # this one came further


def test_starts_that_were_cut_short_for_another_job_are_not_fruitless(tmp_path):
    for number in (1, 2, 3):
        begin(tmp_path, 5, number).end(STOPPED, "SIGUSR1", preempted=number == 2)
    assert last_end(tmp_path) == "ended by SIGUSR1 after step 5"
    begin(tmp_path, 5, 4)
    assert fruitless(tmp_path, 5)
    AttemptLog(tmp_path, 4).end(STOPPED, "SIGTERM", preempted=True)
    assert last_end(tmp_path) == "preempted after step 0"
    assert not fruitless(tmp_path, 5)


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
from pathlib import Path
from pipeline.processes.place import Place
from pipeline.processes.interrupt import Interrupt
from pipeline.runs.attempts import AttemptLog
from pipeline.train import give_up
attempt = AttemptLog(Path(sys.argv[2]), 1)
with Interrupt() as interrupt:
    interrupt.otherwise(0, lambda: give_up(Place("slurm", job="4711"), interrupt, attempt))
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
        [sys.executable, "-c", GIVE_UP, name, tmp_path],
        env=environment(PATH=f"{tmp_path}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == (AGAIN if name == "SIGUSR1" else 1)
    assert "the last checkpoint is where the run goes on" in done.stderr
    assert log.read_text() == asked
    assert last_end(tmp_path) == f"no step ended within 90 s of {name}"
