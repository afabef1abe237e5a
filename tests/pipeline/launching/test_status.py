"""Where a run stands is told from what it left, whatever state that is in."""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass

import pytest

from pipeline.config.overrides import compose
from pipeline.launching.plan import PlannedRun
from pipeline.launching.status import counted, status_of
from pipeline.runs import records
from pipeline.runs.attempts import STOPPED, AttemptLog, holder
from pipeline.runs.log import tail
from tests.pipeline.ranks import environment
from tests.pipeline.runs.test_records import record

HOLD = """
import sys; from pathlib import Path; from pipeline.runs.attempts import lease
with lease(Path(sys.argv[1])):
    print("held", flush=True); sys.stdin.read()
"""


@dataclass(frozen=True)
class Job:
    state: str
    id: str = "17_3"
    reason: str = ""

    @property
    def live(self) -> bool:
        return self.state in ("pending", "running")


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


def started(directory, rows=(), metrics=()):
    AttemptLog(directory, 1).begin(1, ("here",), "", 0)
    size = {"step": 0, "time": 0.0, "start": 1, "steps": 100, "images": 32}
    for name, lines in (("timing.jsonl", (size, *rows)), ("metrics.jsonl", metrics)):
        (directory / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


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
    started(
        directory,
        [{"step": 50, "time": 0.0, "images_per_second": 64.0, "wait_share": 0.0}],
        [
            {"step": 40, "evaluated": 1, "top1": 50.0, "ema_top1": 60.0},
            {"step": 50, "loss": 1.0, "epoch": 1.1},
        ],
    )
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
    at = status_of(run, Job(state))
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
    assert [line[20:] for line in tail(directory / "log.txt", 1)] == ["error: rank 0: rank 1 is gone"]
    second = AttemptLog(directory, 2)
    second.begin(1, ("here",), "", 0)
    assert "without a word" in status_of(run).error
    second.step = 1060
    second.end(STOPPED, "SIGUSR1")
    assert status_of(run).error == "ended by SIGUSR1 after step 1,060"
    AttemptLog(directory, 3).fail("before its first step")
    assert (status_of(run).error, status_of(run).attempts) == ("before its first step", 2)


def test_a_run_that_died_before_its_log_is_known_by_what_it_printed(run, directory):
    (directory / "output.log").write_text("a warning\nerror: there is no config at x\n")
    assert (status_of(run).state, status_of(run).error) == ("broken", "there is no config at x")


def test_lines_that_a_kill_tore_are_passed_over(run, directory):
    started(directory, [{"step": 50, "time": 0.0, "images_per_second": 64.0}])
    with open(directory / "timing.jsonl", "a") as file:
        file.write('{"step": 60, "ti')
    assert status_of(run).step == 50


def test_a_long_log_is_read_from_its_end(directory):
    (directory / "log.txt").write_text("".join(f"line {i}\n" for i in range(100_000)))
    assert tail(directory / "log.txt", 2) == ["line 99998", "line 99999"]


def test_every_state_is_counted(run):
    found = [status_of(run), status_of(run, Job("pending")), status_of(run, Job("failed"))]
    assert counted(found) == {"pending": 1, "broken": 1, "missing": 1}
