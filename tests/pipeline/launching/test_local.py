"""Which run of several may start, and with what; test_launch_local.py has them run."""

import dataclasses
import signal

import pytest

from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.launching import local
from pipeline.launching.local import Room, Work, _ready, _settled, _why, ask_to_end, name, room
from pipeline.launching.plan import Wanted
from pipeline.runs import records
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
    assert room(compose(list(settings))) == Room(slots, (), ranks)


def test_each_run_has_gpus_of_its_own(machine):
    machine(8, 4)
    one = room(compose([]))
    assert (one.slots, one.ranks) == (4, 1)
    assert [one.environment(slot) for slot in range(4)] == [
        {"CUDA_VISIBLE_DEVICES": str(i)} for i in range(4)
    ]
    two = room(compose(["cluster.gpus=2"]))
    assert [two.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(two.slots)] == ["0,1", "2,3"]


def test_gpus_that_are_not_shown_to_us_are_not_given_away(machine):
    machine(8, 2, "5,7")
    shown = room(compose([]))
    assert [shown.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(shown.slots)] == ["5", "7"]


def test_more_gpus_than_are_here_are_refused(machine):
    machine(8, 2)
    with pytest.raises(UserError, match="2 are here"):
        room(compose(["cluster.gpus=4"]))
    with pytest.raises(UserError, match="2 are here"):
        room(compose(["cluster.jobs=3"]))
    assert room(compose(["cluster.jobs=3", "engine.device=cpu"])).slots == 3


@pytest.fixture
def family(tmp_path):
    """A run, and one that starts from its weights."""
    config = compose(
        ["scale=demo", f"paths.runs={tmp_path / 'runs'}", f"paths.records={tmp_path / 'records'}"]
    )
    parent = Wanted(config, record().id, ("imagenet/tnt_s",))
    return parent, Wanted(config, "a" * 12, ("transfer/tnt_s-pets",), after=parent.id)


def test_a_run_waits_for_the_one_that_it_starts_from(family, tmp_path):
    parent, child = family
    assert _ready(parent, Work())
    assert not _ready(child, Work())
    records.publish(record(), tmp_path / "records")
    assert _ready(child, Work())


def test_what_starts_from_a_failed_run_is_said_and_not_started(family):
    parent, child = family
    work = Work(failed={parent.id: "no room"})
    assert _settled(child, work, print)
    assert work.failed[child.id] == f"waits for run {parent.id}, which has failed"
    assert not _settled(dataclasses.replace(child, after=""), Work(), print)


def test_a_finished_run_is_not_started(family, tmp_path):
    parent, _ = family
    records.publish(record(), tmp_path / "records")
    work = Work()
    assert _settled(parent, work, print)
    assert work.done == [parent.id]


def test_the_end_of_a_process_is_told_in_a_line(tmp_path):
    assert _why(-signal.SIGKILL, tmp_path) == "killed by SIGKILL"
    assert _why(3, tmp_path) == f"status 3; see {tmp_path / 'output.log'}"
    (tmp_path / "output.log").write_text("Traceback\nerror: no room\n")
    assert _why(1, tmp_path) == "no room"


def test_nobody_is_signalled_where_nobody_holds_the_run(tmp_path):
    (tmp_path / "lease").write_text("process 1 on nowhere\n")
    assert ask_to_end(tmp_path) == ""


def test_a_run_is_named_for_a_person(family):
    parent, _ = family
    assert name(parent) == f"imagenet/tnt_s ({parent.id})"
    alone = Wanted(compose(["scale=demo", "seed=4"]), "b" * 12)
    assert name(alone) == f"tnt_s on digits seed 4 ({'b' * 12})"
