"""Where a run stands is told from what it left, whatever state that is in."""

import dataclasses
import os
import subprocess
import sys
import tempfile
from itertools import takewhile
from pathlib import Path

import pytest

from pipeline.config.machine import LoggingConfig
from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import commands
from pipeline.launching.slurm.launches import Launch
from pipeline.launching.status import check_access, counted, status_of
from pipeline.processes.place import Place
from pipeline.runs import records
from pipeline.runs import state as states
from pipeline.runs.attempts import STOPPED, AttemptLog, holder, lease
from pipeline.runs.log import tail
from pipeline.runs.state import RunState
from pipeline.training.logger import RunLogger, RunSize
from tests.pipeline.ranks import environment
from tests.pipeline.runs.test_records import record

HOLD = """
import sys; from pathlib import Path; from pipeline.runs.attempts import lease
with lease(Path(sys.argv[1])):
    print("held", flush=True); sys.stdin.read()
"""


def job(state, **more):
    return commands.Job("17_3", state, **more)


@pytest.fixture
def run(tmp_path):
    config = compose(
        ["scale=demo", f"paths.runs={tmp_path / 'runs'}", f"paths.records={tmp_path / 'records'}"]
    )
    wanted = PlannedRun(config, record().id, ("inner_heads/4",))
    (tmp_path / "runs" / wanted.id).mkdir(parents=True)
    return wanted


@pytest.fixture
def directory(run, tmp_path):
    return tmp_path / "runs" / run.id


def started(directory, step=0, **said):
    AttemptLog(directory, 1).begin(1, ("here",), Place("plain"))
    states.write(directory, RunState(1, step=step, steps=100, images_per_step=32, **said))


def test_a_run_of_which_nothing_is_there_is_missing(run):
    assert (status_of(run).state, status_of(run).attempts) == ("missing", 0)


def test_a_run_without_data_has_no_id_and_says_why(run):
    without = dataclasses.replace(run, id="", obstacle="no shards at data/x")
    assert (status_of(without).state, status_of(without).error) == ("no data", "no shards at data/x")


def test_a_finished_run_is_told_from_its_record(run, tmp_path):
    records.publish(record(), tmp_path / "records")
    at = status_of(run)
    assert (at.state, at.step, at.top1, at.attempts, at.seconds_left) == ("done", 40, 96.9, 3, 0.0)


def test_a_damaged_record_is_no_finished_run(run, tmp_path):
    path = records.publish(record(), tmp_path / "records")
    path.write_text(path.read_text().replace("96.9", "99.9"))
    at = status_of(run)
    assert at.state == "broken"
    assert "edited or damaged" in at.error


def test_a_run_that_is_held_is_running_until_its_process_dies(run, directory):
    started(directory, 50, images_per_second=64.0, top1=60.0)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        at = status_of(run)
        assert (at.state, at.where) == ("running", str(holder(directory)))
        assert at.where.startswith(f"process {process.pid} on ")
        assert (at.step, at.steps, at.images_per_second, at.top1) == (50, 100, 64.0, 60.0)
        assert at.seconds_left is not None
    finally:
        process.kill()
        process.communicate()
    at = status_of(run)
    assert (at.state, at.where, at.step, at.seconds_left) == ("broken", "", 50, None)


@pytest.mark.parametrize(
    ("state", "expected"), [("pending", "pending"), ("running", "running"), ("failed", "broken")]
)
def test_a_job_says_where_a_run_stands_that_has_left_nothing(run, state, expected):
    at = status_of(run, job(state))
    assert at.state == expected
    assert "17_3" in at.where + at.error


@pytest.mark.slow
def test_asking_never_keeps_a_trainer_out(directory):
    """A trainer enters and leaves its run again and again, while somebody asks all the time who holds it."""
    enter = (
        "import sys; from pathlib import Path; from pipeline.runs.attempts import lease\n"
        "for _ in range(2000):\n"
        "    with lease(Path(sys.argv[1])): pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", enter, str(directory)], env=environment(), stderr=subprocess.PIPE, text=True
    )
    seen = set()
    while process.poll() is None:
        seen.add(holder(directory) is not None)
    assert process.returncode == 0, process.stderr.read()
    assert seen == {False, True}  # it did ask while the run was held


def test_the_error_is_how_the_last_attempt_ended(run, directory):
    started(directory)
    assert status_of(run).error == "it ended without a word: killed, or out of memory"
    AttemptLog(directory, 1).fail("rank 1: no room\nleft on the disk")
    AttemptLog(directory, 1).fail("rank 0: rank 1 is gone")
    assert status_of(run).error == "rank 1: no room left on the disk"
    assert [line[25:] for line in tail(directory / "log.txt", 1)] == ["error: rank 0: rank 1 is gone"]
    second = AttemptLog(directory, 2)
    second.begin(1, ("here",), Place("plain"))
    assert "without a word" in status_of(run).error
    second.step = 1060
    second.end(STOPPED, "SIGUSR1")
    assert (status_of(run).state, status_of(run).error) == ("stopped", "ended by SIGUSR1 after step 1,060")
    AttemptLog(directory, 3).fail("before its first step")
    assert (status_of(run).error, status_of(run).attempts) == ("before its first step", 2)


def test_a_run_that_died_before_its_log_is_known_by_what_it_printed(run, directory):
    (directory / "output.log").write_text("a warning\nerror: there is no config at x\n")
    assert (status_of(run).state, status_of(run).error) == ("broken", "there is no config at x")


def test_progress_is_known_however_long_the_logs_are(run, directory):
    """A day's lines: what is said once at the start of an attempt is far from their end."""
    size = RunSize(steps=100_000, steps_per_epoch=1000, images_per_step=32)
    journal = RunLogger(directory, LoggingConfig(every=1, tensorboard=False), size)
    AttemptLog(directory, 1).begin(1, ("here",), Place("plain"))
    journal.rewind(0)
    journal.step(1, {"loss": 1.0})
    with open(directory / "timing.jsonl", "ab") as file:
        file.write(b'{"step": 2, "time": 0.0, "images_per_second": 1.0}\n' * 30_000)
    journal.step(2, {"loss": 1.0})
    journal.close()
    at = status_of(run)
    assert (at.step, at.steps) == (2, 100_000)
    assert at.epoch is not None
    assert at.images_per_second > 0


def test_a_long_log_is_read_from_its_end(directory):
    (directory / "log.txt").write_text("".join(f"line {i}\n" for i in range(100_000)))
    assert tail(directory / "log.txt", 2) == ["line 99998", "line 99999"]


def test_who_ended_a_run_or_what_is_said(run, directory):
    """Slurm may know what a run had no time to say."""
    started(directory)
    said = {
        state: status_of(run, job(state)) for state in ("cancelled", "timeout", "node_fail", "out_of_memory")
    }
    assert [at.state for at in said.values()] == ["stopped", "broken", "broken", "broken"]
    assert [at.error for at in said.values()] == [
        "job 17_3: cancelled",
        "job 17_3: its time was over",
        "job 17_3: its node failed",
        "job 17_3: out of memory",
    ]
    AttemptLog(directory, 1).end(STOPPED, "SIGUSR1")
    AttemptLog(directory, 1).fail("job 17_3 could not be requeued: it is being held")
    assert (status_of(run).state, status_of(run).error) == (
        "broken",
        "job 17_3 could not be requeued: it is being held",
    )


def test_a_job_that_ended_before_its_run_began_is_known_by_what_it_printed(run, directory):
    launch = Launch.begin(directory.parent, [run.id])
    launch.settle("17")
    out = launch.directory / "17_0_0_log.out"
    out.write_text("slurm_script: line 20: cd: /runs/.code/1f: No such file or directory\n")
    failed = commands.Job("17_0", "failed")
    assert status_of(run, failed).error.startswith("job 17_0: failed: slurm_script: line 20: cd:")
    out.write_text("error: no config\nsrun: Terminating job step\n")
    assert status_of(run, failed).error == "job 17_0: failed: error: no config"


def test_a_run_that_was_queued_again_and_has_no_job_was_not_stopped_by_anybody(run, directory):
    """Its controller has lost its state, or somebody cancelled what waited elsewhere."""
    log = AttemptLog(directory, 1)
    log.begin(1, ("here",), Place("slurm", job="17"))
    log.end(STOPPED, "SIGUSR1")
    assert status_of(run, job("pending")).state == "pending"
    at = status_of(run)
    assert (at.state, at.error) == ("broken", "ended by SIGUSR1 after step 0; no job of it is left")
    assert status_of(run, job("cancelled")).state == "stopped"
    second = AttemptLog(directory, 2)
    second.begin(1, ("here",), Place("slurm", job="18"))
    second.end(STOPPED, "SIGTERM")
    assert status_of(run).state == "stopped"


def test_where_the_scheduler_does_not_answer_nobody_knows(run, directory):
    assert status_of(run, asked=False).state == "unknown"
    with lease(directory):  # that is seen without it
        assert status_of(run, asked=False).state == "running"


@pytest.mark.parametrize("reason", ["JobHeldUser", "launch failed requeued held"])
def test_a_job_that_waits_for_somebody_says_how_it_goes_on(run, reason):
    assert "`scontrol release 17_3`" in status_of(run, job("pending", reason=reason)).where
    assert job("special_exit").live  # else it would be submitted again


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a while")
def test_somebody_elses_runs_are_refused_in_one_line(run, directory, tmp_path):
    directory.chmod(0o700)
    for path in takewhile(lambda path: path != Path(tempfile.gettempdir()), (tmp_path, *tmp_path.parents)):
        path.chmod(0o755)
    check_access([run])
    for place, mode in ((directory.parent, 0o755), (directory, 0o777)):
        directory.parent.chmod(mode)
        os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=f"{place} is root's.*paths.runs=") as error:
                check_access([run])
        finally:
            os.seteuid(0)
        assert "\n" not in str(error.value)


def test_every_state_is_counted(run):
    found = [status_of(run), status_of(run, job("pending")), status_of(run, job("failed"))]
    assert counted(found) == {"pending": 1, "broken": 1, "missing": 1}
