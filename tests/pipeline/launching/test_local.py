"""Which run of several may start, and with what; test_launch_local.py has them run."""

import dataclasses
import signal
import subprocess
import sys
import time

import pytest

from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.launching import local
from pipeline.launching.local import Capacity, LocalRuns, _ready, _settled, _why, ask_to_end, capacity, name
from pipeline.launching.plan import PlannedRun
from pipeline.runs import records
from pipeline.runs.attempts import FAILED, AttemptLog
from pipeline.runs.directory import run_directory
from pipeline.runs.log import tail
from tests.pipeline.ranks import DEADLINE, ROOT, environment
from tests.pipeline.runs.test_records import record


@pytest.fixture
def machine(monkeypatch):
    """One with so many cores and GPUs."""

    def having(cores: int, gpus: int = 0, visible: str | None = None) -> None:
        monkeypatch.setattr(local, "cores", lambda: cores)
        monkeypatch.setattr(local, "gpus", lambda: ["NVIDIA A100"] * gpus)
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return having


@pytest.mark.parametrize(
    ("settings", "slots", "ranks"),
    [
        ((), 1, 1),  # a run takes all cores unless it says how many
        (("engine.threads=1",), 8, 1),
        (("engine.threads=3",), 2, 1),
        (("engine.threads=1", "cluster.gpus=2"), 4, 2),
        (("cluster.jobs=5",), 5, 1),
    ],
)
def test_runs_share_the_cores(machine, settings, slots, ranks):
    machine(8)
    assert capacity(compose(list(settings))) == Capacity(slots, (), ranks)


def test_each_run_has_gpus_of_its_own(machine):
    machine(8, 4)
    one = capacity(compose([]))
    assert (one.slots, one.ranks) == (4, 1)
    assert [one.environment(slot) for slot in range(4)] == [
        {"CUDA_VISIBLE_DEVICES": str(i)} for i in range(4)
    ]
    two = capacity(compose(["cluster.gpus=2"]))
    assert [two.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(two.slots)] == ["0,1", "2,3"]


def test_gpus_that_are_not_shown_to_us_are_not_given_away(machine):
    machine(8, 2, "5,7")
    shown = capacity(compose([]))
    assert [shown.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(shown.slots)] == ["5", "7"]


def test_more_gpus_than_are_here_are_refused(machine):
    machine(8, 2)
    with pytest.raises(UserError, match="2 are here"):
        capacity(compose(["cluster.gpus=4"]))
    with pytest.raises(UserError, match="2 are here"):
        capacity(compose(["cluster.jobs=3"]))
    assert capacity(compose(["cluster.jobs=3", "engine.device=cpu"])).slots == 3


@pytest.fixture
def family(tmp_path):
    """A run, and one that starts from its weights."""
    config = compose(
        ["scale=demo", f"paths.runs={tmp_path / 'runs'}", f"paths.records={tmp_path / 'records'}"]
    )
    parent = PlannedRun(config, record().id, ("imagenet/tnt_s",))
    return parent, PlannedRun(config, "a" * 12, ("transfer/tnt_s-pets",), after=parent.id)


def test_a_run_waits_for_the_one_that_it_starts_from(family, tmp_path):
    parent, child = family
    assert _ready(parent)
    assert not _ready(child)
    records.publish(record(), tmp_path / "records")
    assert _ready(child)


def test_what_starts_from_a_failed_run_is_said_and_not_started(family):
    parent, child = family
    work = LocalRuns(failed={parent.id: "no room"})
    assert _settled(child, work, print)
    assert work.failed[child.id] == f"waits for run {parent.id}, which has failed"
    assert not _settled(dataclasses.replace(child, after=""), LocalRuns(), print)


def test_a_finished_run_is_not_started(family, tmp_path):
    parent, _ = family
    records.publish(record(), tmp_path / "records")
    work = LocalRuns()
    assert _settled(parent, work, print)
    assert work.done == {parent.id}


def test_the_end_of_a_process_is_told_in_a_line(tmp_path, monkeypatch):
    assert _why(-signal.SIGKILL, tmp_path, 1) == "killed by SIGKILL"
    assert _why(3, tmp_path, 1) == f"status 3; see {tmp_path / 'output.log'}"
    (tmp_path / "output.log").write_text("Traceback\nerror: no room\n")
    assert _why(1, tmp_path, 1) == "no room"
    AttemptLog(tmp_path, 1).end(FAILED, "of the attempt before")
    assert _why(1, tmp_path, 2) == "no room"
    monkeypatch.setattr(time, "time", lambda: 0.0)  # the clock was set back
    AttemptLog(tmp_path, 2).end(FAILED, "this one's")
    assert _why(1, tmp_path, 2) == "this one's"


def test_a_run_of_this_machine_is_no_part_of_the_job_around_it(family, monkeypatch):
    """On a node, in a session by srun: to cancel the run must not end the session."""
    for variable in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_ID"):
        monkeypatch.setenv(variable, "17")
    run, _ = family
    program = (
        "-c",
        "from pipeline.processes.place import find_place; print(find_place().launcher, find_place().job)",
    )
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    local.start(run, Capacity(1, (), 1), 0, program).process.wait(DEADLINE)
    assert tail(run_directory(run.config, run.id) / "output.log") == ["plain "]


def test_nobody_is_signalled_where_nobody_holds_the_run(tmp_path):
    (tmp_path / "lease").write_text('{"pid": 1, "host": "nowhere", "job": ""}\n')
    assert ask_to_end(tmp_path) == ""


HOLD = """
import signal, socket, sys; from pathlib import Path; from pipeline.runs.attempts import lease
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
socket.gethostname = lambda: sys.argv[2]
with lease(Path(sys.argv[1]), sys.argv[3]):
    print("held", flush=True); sys.stdin.read()
"""


# "job": it was once taken for a word of the lease's, and nobody on such a host could be asked.
@pytest.mark.parametrize(
    ("host", "job", "status"), [("job1", "", 7), ("job1", "12", 0), ("elsewhere", "", 0)]
)
def test_the_process_of_this_host_that_holds_a_run_outside_of_a_job_is_asked_to_end(
    tmp_path, monkeypatch, host, job, status
):
    monkeypatch.setattr("socket.gethostname", lambda: "job1")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), host, job],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        assert ask_to_end(tmp_path) == (f"process {process.pid} on job1" if status else "")
        process.communicate(timeout=DEADLINE)  # closes its input, which ends it in any case
        assert process.returncode == status
    finally:
        process.kill()
        process.wait()


def test_a_run_is_named_for_a_person(family):
    parent, _ = family
    assert name(parent) == f"imagenet/tnt_s ({parent.id})"
    alone = PlannedRun(compose(["scale=demo", "seed=4"]), "b" * 12)
    assert name(alone) == f"tnt_s on digits seed 4 ({'b' * 12})"
