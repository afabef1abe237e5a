"""Who submitted runs is told once of each failure, and once that all have ended."""

import dataclasses

import pytest

from pipeline.config.machine import About
from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.launching.slurm import notices
from pipeline.launching.slurm.launches import Launch
from pipeline.processes.place import Place
from pipeline.runs import records
from pipeline.runs.attempts import FINISHED, STOPPED, AttemptLog
from pipeline.runs.directory import write_config
from tests.pipeline.runs.test_records import record

DONE, OTHER = record().id, "b" * 12


@pytest.fixture
def launch(tmp_path):
    paths = (f"paths.runs={tmp_path / 'runs'}", f"paths.records={tmp_path / 'records'}")
    for id, cell in ((DONE, "4"), (OTHER, "8")):
        config = compose(["scale=demo", *paths])
        write_config(dataclasses.replace(config, about=About("inner_heads", cell)), id)
    launch = Launch.begin(tmp_path / "runs", [DONE, OTHER])
    launch.settle("17")
    return launch


def attempt(launch, id):
    log = AttemptLog(launch.directory.parents[1] / id, 1)
    log.begin(1, ("here",), Place("plain"))
    return log


def test_a_failure_is_told_at_once_and_the_end_of_all_once(launch, tmp_path):
    attempt(launch, DONE).end(FINISHED)
    records.publish(record(), tmp_path / "records")
    assert notices.events(launch, DONE, 0) == []  # the other goes on
    attempt(launch, OTHER).fail("no room left")
    [failed, ended] = notices.events(launch, OTHER, 1)
    assert failed == ("tnt: inner_heads/8 failed", f"no room left\nrun {OTHER}, job 17_1")
    assert ended[0] == "tnt: inner_heads: 1 of 2 runs are done, 1 failed"
    assert notices.events(launch, DONE, 0) == []


@pytest.mark.parametrize("status", [0, 1, 143])
def test_of_a_run_that_was_stopped_or_is_queued_again_nothing_is_told(launch, status):
    attempt(launch, OTHER).end(STOPPED, "SIGUSR1")
    assert notices.events(launch, OTHER, status) == []


def test_a_run_that_had_no_time_to_say_why_is_told_too(launch):
    assert notices.events(launch, DONE, 0) == []  # queued again before its first step
    [(_, text)] = notices.events(launch, DONE, 127)
    assert text.startswith("its job ended with status 127 before its first step")
    attempt(launch, OTHER)
    [(_, text)] = notices.events(launch, OTHER, 137)
    assert text.startswith("it ended without a word")


def test_an_address_that_nothing_could_be_sent_to_is_refused_and_not_repeated():
    notices.check("json://127.0.0.1/path")
    with pytest.raises(UserError, match="notify=nope:… is no address") as error:
        notices.check("nope://user:secret@host")
    assert "secret" not in str(error.value)


def test_the_address_is_for_its_owner_alone(launch):
    notices.keep(launch, "json://user:secret@host")
    assert (launch.directory / "notify").stat().st_mode & 0o777 == 0o600
    files = [path for path in launch.directory.parents[1].rglob("*") if path.is_file()]
    assert [path.name for path in files if b"secret" in path.read_bytes()] == ["notify"]
