"""launch.py as it is typed: what it says and how it ends. Nothing is trained; see test_launch_local.py."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ablations import report
from pipeline import launch, train
from pipeline.config.overrides import compose
from pipeline.data import dataset
from pipeline.errors import UserError
from pipeline.launching import overview
from pipeline.launching.arguments import again, parse
from pipeline.runs.attempts import AttemptLog
from tests.pipeline.ranks import ROOT, environment

PLACES = ("runs", "records", "data")
HEADS = ("ablation=inner_heads", "scale=demo", "cluster=local")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Settings that keep runs, records and generated data in a folder of the test's."""
    folder = tmp_path_factory.mktemp("launch")
    places = tuple(f"paths.{name}={folder / name}" for name in PLACES)
    dataset.prepare(compose(["scale=demo", *places]).data)
    return places


def said(capsys, *argv: str) -> dict:
    launch.main([*argv, "json=true"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("ablation=inner_head", "unknown ablation 'inner_head' (did you mean 'inner_heads'?)"),
        ("abalation=se", "unknown setting 'abalation' (did you mean 'ablation'?)"),
        ("action=pla", "unknown action 'pla' (did you mean 'plan'?)"),
        ("ablation=se action=plan cells=otter", "unknown cell 'otter' (did you mean 'outer'?)"),
        ("cluster=slrum", "unknown cluster 'slrum' (did you mean 'slurm'?)"),
        ("model=tnt_x", "unknown model 'tnt_x' (did you mean 'tnt_"),
        ("recipe.epoch=3", "unknown setting of recipe 'epoch' (did you mean 'epochs'?)"),
        ("plan", "'plan' is no setting; write name=value"),
        ("--plan", "'--plan' is no setting; write name=value"),
        ("seeds=0,a", "seeds=0,a cannot be read; write seeds=0,1,2"),
        ("seeds=-1", "seeds=-1 cannot be read"),
        ("seeds=1 seed=2", "seed= and seeds= are both given"),
        ("max_gpu_hours=much", "max_gpu_hours=much cannot be read"),
        ("max_gpu_hours=nan", "max_gpu_hours=nan cannot be read"),
        ("json=yes", "json=yes cannot be read; write json=true"),
        ("cells=1", "say of which with ablation="),
        ("fresh=true action=retry", "fresh=true starts runs anew; action=retry does not"),
        ("action=plan action=status", "action is given twice"),
        ("ablation=inner_heads model.inner_heads=2", "model.inner_heads is for this ablation to set"),
    ],
)
def test_a_mistake_is_one_line_with_the_cure(argument, message):
    with pytest.raises(UserError) as error:
        launch.main(["scale=demo", *argument.split()])
    assert message in str(error.value)
    assert error.value.exit_status == 2
    assert "\n" not in str(error.value)


def test_nothing_is_started_where_nothing_was_asked_for():
    with pytest.raises(UserError, match="say what to run, as in ablation=inner_heads action=plan"):
        launch.main([])
    with pytest.raises(UserError, match="say what to train, as in scale=demo"):
        train.main([])


def test_much_is_started_only_after_an_answer(place, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(launch, "run_here", lambda request, runs, todo: started.extend(todo) or 0)
    dear = [*HEADS, *place, "cost.images_per_second=0.1"]
    with pytest.raises(UserError, match=r"start \d+ to \d+ device-hours\? there is no terminal to ask at"):
        launch.main(dear)
    monkeypatch.setattr(launch, "confirmed", lambda question: False)
    assert launch.main(dear) == 1
    assert capsys.readouterr().err == "nothing was started\n"
    assert not started
    for answer in ("yes=true", "confirm_above=1e6"):
        assert launch.main([*dear, answer]) == 0
    assert launch.main([*HEADS, *place]) == 0
    assert len(started) == 12


def test_an_ablation_without_cells_at_a_scale_is_refused(place):
    with pytest.raises(UserError, match="ablation=rivals has no cell at this scale"):
        launch.main(["ablation=rivals", "scale=demo", "action=status", *place])


def test_help_names_every_action_and_ablation(capsys):
    assert launch.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in (
        "submit",
        "plan",
        "status",
        "logs",
        "cancel",
        "retry",
        "rehearse",
        "calibrate",
        "inner_heads",
    ):
        assert name in out


def test_a_run_that_several_tables_want_is_planned_once(capsys, place):
    found = said(capsys, "ablation=all", "scale=demo", "action=plan", "cluster=local", *place)
    labels = [set(run["labels"]) for run in found["runs"]]
    shared = [each for each in labels if "imagenet/tnt_s" in each]
    assert shared == [
        {
            "imagenet/tnt_s",
            "inner_heads/4",
            "patch_size/4",
            "position_encoding/both",
            "pyramid/tnt_s",
            "recipe_switches/plain",
            "se/none",
        }
    ]
    ids = [run["id"] for run in found["runs"]]
    assert len(set(ids)) == len(ids)


def test_a_run_stands_behind_the_one_that_it_starts_from(capsys, place):
    found = said(capsys, "ablation=transfer", "scale=demo", "action=plan", "cluster=local", *place)
    seen = set()
    for run in found["runs"]:
        assert not run["after"] or run["after"] in seen
        seen.add(run["id"])
    assert sum(bool(run["after"]) for run in found["runs"]) > 0


def test_records_that_came_with_the_code_are_shown_and_not_taken_for_this_machines(
    capsys, place, tmp_path, monkeypatch
):
    """As in a fresh clone: the report shows the shipped numbers, the launcher would train all."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/shipped").symlink_to(ROOT / "results/shipped")
    data = next(text for text in place if text.startswith("paths.data="))
    found = said(capsys, *HEADS, data, "action=status")["runs"]
    assert {run["state"] for run in found} == {"missing"}
    shipped = {path.stem for path in (ROOT / "results/shipped").glob("*.json")}
    assert {run["id"] for run in found} <= shipped
    assert report.main(["--scale", "demo", "--table", "6"]) == 0
    assert capsys.readouterr().out.count("(n=1)") == len(found)


def test_each_seed_is_a_run_of_its_own(capsys, place):
    found = said(capsys, *HEADS, "action=plan", "seeds=0,1,5", "cells=2,4", *place)
    assert [run["seed"] for run in found["runs"]] == [0, 0, 1, 1, 5, 5]
    assert len({run["id"] for run in found["runs"]}) == 6


def test_seeds_may_be_a_row_of_numbers(capsys):
    assert parse(["seeds=0..3, 7"]).seeds == (0, 1, 2, 3, 7)
    assert "seeds=0..49 " in again(parse(["seeds=0..49"]), "status")
    assert "seeds=0..3,7 " not in again(parse(["seeds=0..3,7"]), "status")
    with pytest.raises(UserError, match=r"3\.\.1 must be a row of 1 to"):
        parse(["seeds=3..1"])


def test_a_single_run_needs_no_ablation(capsys, place):
    found = said(capsys, "scale=demo", "seed=3", "action=plan", "cluster=local", *place)
    [run] = found["runs"]
    assert (run["seed"], run["labels"], run["state"]) == (3, [], "missing")
    assert run["cost"]["images"] > 0


@pytest.mark.parametrize("name", ["digits", "marks"])
def test_a_plan_and_a_status_write_nothing_and_know_what_will_be_made(capsys, tmp_path, name):
    own = [
        "scale=demo",
        f"data={name}",
        "cluster=local",
        *(f"paths.{each}={tmp_path / each}" for each in PLACES),
    ]
    before = said(capsys, *own, "action=plan")["runs"][0]
    assert before == said(capsys, *own, "action=plan")["runs"][0]
    launch.main([*own, "action=status"])
    launch.main([*own, "action=plan"])
    assert f"{tmp_path / 'data' / name} is not there yet: whatever starts the first run makes it" in (
        capsys.readouterr().out.replace("\n", " ")
    )
    assert list(tmp_path.iterdir()) == []
    config = launch.requested_runs(parse(own))[0].config
    dataset.prepare(config.data)
    made = said(capsys, *own, "action=plan")["runs"][0]
    assert (made["id"], made["cost"]["images"]) == (before["id"], before["cost"]["images"])


def test_data_that_are_not_there_are_said_and_nothing_starts(capsys, tmp_path, place):
    paper = ("ablation=inner_heads", "cluster=local", f"data.root={tmp_path / 'none'}", *place)
    found = said(capsys, *paper, "action=plan")
    assert {run["state"] for run in found["runs"]} == {"no data"}
    assert all(run["cost"]["images"] > 300e6 for run in found["runs"])  # ImageNet's size is known
    with pytest.raises(UserError, match="none of these runs has its data; nothing was started"):
        launch.main(paper)
    assert "shards.py make" in capsys.readouterr().err


def test_more_gpu_hours_than_allowed_are_refused(capsys, place):
    told = (*HEADS, "cost.images_per_second=700", *place)
    with pytest.raises(UserError, match=r"may take .* GPU-hours, above max_gpu_hours=1e-06; nothing"):
        launch.main([*told, "max_gpu_hours=1e-6"])
    with pytest.raises(UserError, match="nothing was started"):
        launch.main([*told, "max_gpu_hours=1e-6", "action=plan"])
    assert "device-hours" in capsys.readouterr().out  # the plan is shown all the same
    assert launch.main([*told, "max_gpu_hours=1000", "action=plan"]) == 0


def test_where_nothing_was_measured_a_budget_refuses_and_says_both_cures(capsys, place):
    with pytest.raises(
        UserError, match=r"action=calibrate .* cost\.images_per_second=N .*nothing was started"
    ):
        launch.main([*HEADS, "max_gpu_hours=1000", *place])
    launch.main([*HEADS, "action=plan", *place])
    [total] = [line for line in capsys.readouterr().out.splitlines() if " device-hours and " in line]
    assert "–" in total.split()[0]  # from one figure to another


@pytest.mark.timeout(60)
def test_watching_ends_where_nothing_goes_on(capsys, place):
    """One run broke, the others were not begun: nobody would change that by waiting."""
    [run, *_] = said(capsys, *HEADS, "action=plan", *place)["runs"]
    directory = Path(place[0].partition("=")[2]) / run["id"]
    directory.mkdir(parents=True)
    AttemptLog(directory, 1).fail("no room")
    assert launch.main([*HEADS, "action=status", "watch=true", *place]) == 1
    assert "no room" in capsys.readouterr().out
    shutil.rmtree(directory)


def test_of_many_runs_those_are_shown_of_which_there_is_something_to_see(capsys, place):
    many = ("seeds=0..19", *HEADS, *place)
    assert launch.main([*many, "action=status"]) == 0
    out = capsys.readouterr().out
    assert "80 missing" in out
    assert "json=true has all 80" in out
    assert len(out.splitlines()) < 10
    assert len(said(capsys, *many, "action=status")["runs"]) == 80


def test_a_plan_that_the_disk_cannot_hold_says_so(capsys, place, monkeypatch, tmp_path):
    launch.main([*HEADS, "action=plan", *place])
    assert "are free" not in capsys.readouterr().out
    monkeypatch.setattr(overview, "free_space", lambda folder: 3_000_000)
    launch.main([*HEADS, "action=plan", *place])
    assert "MB disk to go, where 3 MB are free" in capsys.readouterr().out
    monkeypatch.undo()
    assert overview.free_space(tmp_path / "not/there/yet") > 0


def test_nothing_is_cancelled_where_nothing_is_at_work(capsys, place):
    assert launch.main([*HEADS, "action=cancel", *place]) == 0
    assert capsys.readouterr().out == "none of these runs is at work\n"


def test_logs_of_runs_that_have_none(capsys, place):
    found = said(capsys, *HEADS, "action=logs", *place)
    assert [run["files"] for run in found["runs"]] == [[], [], [], []]


def test_the_next_command_is_on_the_same_runs():
    typed = ["ablation=se", "cells=none,outer", "seeds=0,1", "scale=demo", "data.root=/a b", "yes=true"]
    line = again(parse(typed), "status")
    expected = "ablation=se seeds=0,1 cells=none,outer scale=demo 'data.root=/a b' action=status"
    assert line == f"python pipeline/launch.py {expected}"


def test_typed_at_a_shell_a_mistake_ends_with_status_2():
    done = subprocess.run(
        [sys.executable, ROOT / "pipeline/launch.py", "ablation=nothing"],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown ablation 'nothing'")
    assert done.stderr.count("\n") == 1
