"""launch.py on a real cluster: every run once, whoever asks and whatever happens to who asked."""

import io
import json
import os
import shutil
import subprocess
import sys

import pytest

from pipeline.errors import UserError
from pipeline.runs.attempts import lease
from tests.slurm.laboratory import PATIENCE, STEPS, Laboratory

TWO = ("ablation=inner_heads", "cells=2,4")
ODD = "a b;touch canary;#&(c)"  # a folder that a careless script would take for commands


@pytest.fixture
def lab(slurm, shards, tmp_path):
    return Laboratory(slurm, tmp_path, shards)


def opened(slurm):
    slurm.run("scontrol", "update", "partitionname=main", "state=up")


def arrays(slurm):
    """Jobs by array."""
    return {
        job.get("ArrayJobId", job["JobId"])
        for job in slurm.jobs()
        if job["JobState"] in ("PENDING", "RUNNING")
    }


def submitted(answer):
    said, _ = answer
    return {one["id"]: one for one in said["submitted"]}


def states(answer):
    said, _ = answer
    return {run["id"]: run["state"] for run in said["runs"]}


def canaries(folder):
    return [path for path in folder.rglob("*canary*") if path.is_file()]


@pytest.mark.slow
def test_five_launches_at_once_an_edit_in_the_queue_and_one_record_of_each_run(
    slurm, shards, tmp_path, closed
):
    odd = shutil.copytree(shards, tmp_path / ODD / "$(touch canary)")
    lab = Laboratory(slurm, tmp_path / ODD, odd)
    commit = lab.commit()
    started = [lab.start(*TWO, "json=true") for _ in range(5)]
    said = [process.communicate(timeout=PATIENCE) for process in started]
    assert [process.returncode for process in started] == [0] * 5, said
    answers = [json.loads(out)["submitted"] for out, _ in said]
    assert sum(one["new"] for answer in answers for one in answer) == 2
    jobs = {one["id"]: one["job"] for one in answers[0]}
    assert all({one["id"]: one["job"] for one in answer} == jobs for answer in answers)
    [array] = arrays(slurm)
    assert sorted(jobs.values()) == [f"{array}_0", f"{array}_1"]
    assert set(lab.states(*TWO).values()) == {"pending"}

    edited = lab.root / "pipeline/training/trainer.py"
    assert edited.exists()  # else the edit would change nothing, and show nothing
    edited.write_text("raise SystemExit('edited after it was submitted')\n")
    interrupted, other = jobs
    with lease(lab.runs / other, jobs[other]):  # as if its ranks lived on where Slurm has lost sight of them
        opened(slurm)
        slurm.wait(
            lambda: slurm.restarts(jobs[other]) == 1, PATIENCE, "a job that meets itself to queue again"
        )
        assert not (lab.runs / other / "attempts.jsonl").exists()
    lab.passes(interrupted, 2)
    slurm.run("scancel", "--signal=USR1", jobs[interrupted])
    lab.finished(*jobs)
    for id, job in jobs.items():
        record = lab.record(id)
        assert (record["commit"], record["dirty"], record["jobs"]) == (commit, False, [job])
    assert (lab.record(interrupted)["attempts"], lab.record(other)["attempts"]) == (2, 1)
    assert slurm.restarts(jobs[other]) == 1  # a task is requeued, not its array
    state = json.loads((lab.runs / other / "state.json").read_text())
    assert (state["job"], state["cluster"], state["attempt"]) == (jobs[other], "tnt", 1)
    assert state["step"] == state["steps"] == STEPS
    assert set(lab.states(*TWO).values()) == {"done"}
    assert lab.submit(*TWO) == {}
    logs = lab.ask(*TWO, "action=logs")["runs"]
    assert all(any(path.endswith("_0_log.out") for path in run["files"]) for run in logs)
    assert not canaries(tmp_path)


def test_cancelled_runs_are_gone_and_retried_alone(slurm, ask, closed, monkeypatch):
    first = submitted(ask(*TWO))
    one = ("ablation=inner_heads", "cells=2")
    [gone] = states(ask(*one, "action=status"))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(UserError, match="no terminal to ask at"):
        ask(*one, "action=cancel")
    assert set(states(ask(*TWO, "action=status")).values()) == {"pending"}
    ask(*one, "action=cancel", "yes=true")
    [kept] = set(first) - {gone}
    assert states(ask(*TWO, "action=status")) == {gone: "missing", kept: "pending"}
    again = submitted(ask(*TWO))
    assert {id: one["new"] for id, one in again.items()} == {gone: True, kept: False}
    assert again[gone]["job"] != first[gone]["job"]
    assert len(arrays(slurm)) == 2
    ask(*TWO, "action=cancel", "yes=true")
    assert arrays(slurm) == set()


def wrapped(lab, text):
    """An environment whose sbatch does something else around the real one."""
    folder = lab.folder / "bin"
    folder.mkdir()
    script = folder / "sbatch"
    real = shutil.which("sbatch")
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *--test-only*) exec {real} "$@";; esac\n{text.format(real=real)}\n'
    )
    script.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_a_submitter_killed_after_sbatch_leaves_each_run_with_one_job(slurm, lab, ask, closed):
    env = wrapped(lab, '{real} "$@"; kill -9 $PPID')
    lab.launch(*TWO, status=-9, env=env)
    [array] = arrays(slurm)
    assert not list(lab.runs.glob(".launches/*/job"))
    found = submitted(ask(*TWO))
    assert {one["job"] for one in found.values()} == {f"{array}_0", f"{array}_1"}
    assert not any(one["new"] for one in found.values())
    assert arrays(slurm) == {array}


def test_a_job_that_comes_after_its_launch_was_given_up_does_nothing(slurm, lab, ask, closed):
    """The submitter is dead, its sbatch still on the way to a slow controller."""
    go = lab.folder / "go"
    env = wrapped(lab, f'kill -9 $PPID; until [ -e {go} ]; do sleep 0.05; done; {{real}} "$@"')
    lab.launch(*TWO, status=-9, env=env)
    runs = submitted(ask(*TWO))
    assert all(one["new"] for one in runs.values())
    before = arrays(slurm)
    go.touch()
    slurm.wait(lambda: arrays(slurm) - before, 30, "the late job")
    [late] = arrays(slurm) - before
    ask(*TWO, "action=cancel", "yes=true")
    assert arrays(slurm) == {late}
    opened(slurm)
    slurm.wait(lambda: not arrays(slurm), PATIENCE, "the end of the late job")
    assert {job["JobState"] for job in slurm.jobs() if job.get("ArrayJobId") == late} == {"COMPLETED"}
    assert lab.said().count(f"job {late} does nothing") == 2
    assert not list(lab.runs.glob("*/attempts.jsonl"))


@pytest.mark.slow
def test_a_run_that_starts_from_another_outlives_what_happens_to_that_one(slurm, lab, closed):
    submitted = lab.submit("ablation=family")
    [parent, child], [first, second] = submitted, [one["job"] for one in submitted.values()]
    assert first.split("_")[0] in slurm.job(second)["Dependency"]
    opened(slurm)

    lab.passes(parent, 2)
    slurm.run("scancel", "--signal=USR1", first)
    slurm.wait(lambda: slurm.restarts(first) == 1, PATIENCE, "a requeue of the parent")
    slurm.run("scontrol", "hold", first)
    assert slurm.state(second) == "PENDING"
    assert "unfulfilled" in slurm.job(second)["Dependency"]

    slurm.run("scontrol", "update", f"jobid={second}", "dependency=")  # as if the parent had ended in between
    slurm.wait(lambda: slurm.restarts(second) >= 1, PATIENCE, "the child to look after its parent")
    slurm.run("scontrol", "release", first)
    lab.finished(parent, child)
    assert lab.record(parent)["attempts"] == 2
    assert lab.record(child)["science"]["recipe"]["init"] == parent
    assert (lab.record(parent)["jobs"], lab.record(child)["jobs"]) == ([first], [second])


def test_status_waits_for_a_controller_that_restarts(slurm, lab, ask, closed):
    ask(*TWO)
    slurm.stop_controller()
    process = lab.start(*TWO, "action=status", "json=true")
    slurm.start_controller()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert {run["state"] for run in json.loads(out)["runs"]} == {"pending"}


def test_what_would_fail_is_said_before_anything_is_submitted_all_at_once(slurm, ask):
    def refused(*words):
        with pytest.raises(UserError) as error:
            ask(*words)
        return str(error.value)

    assert "7 ranks cannot hold equal parts" in refused("cluster.partition=gpus", "cluster.gpus=7")
    slurm.run("scontrol", "update", "partitionname=main", "maxtime=60")
    words = ("cluster.partition=main", "cluster.time=2-00:00:00", "cluster.gpus=12", "cluster.probe=true")
    try:
        said = refused(*words)
    finally:
        slurm.run("scontrol", "update", "partitionname=main", "maxtime=infinite")
    assert "cluster.time=01:00:00" in said
    assert "less of cluster.gpus" in said
    assert "unknown cluster.partition 'gpus': valid are main, urgent" in refused("cluster.partition=gpus")
    assert arrays(slurm) == set()


def test_a_probe_sees_what_a_node_lacks_and_nothing_else(slurm, lab):
    program = (
        "import sys; from pipeline.config.overrides import compose; "
        "from pipeline.launching.slurm.preflight import lacking; print(*lacking(compose(sys.argv[1:])))"
    )
    said = _python(lab, program)
    # The folder of the runs is not there yet; scontrol and torch are.
    assert said == f"on a node, {lab.runs} cannot be written → paths.runs on a shared file system"


def _python(lab, program, *words):
    done = subprocess.run(
        [sys.executable, "-c", program, *lab.settings, *words],
        cwd=lab.root,
        env=lab.environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return done.stdout.strip()


HOSTILE = (
    "cluster.partition=main;touch canary",
    "cluster.partition=main\ntouch canary\n#",
    "cluster.account=$(touch canary)",
    "cluster.qos=`touch canary`",
    "cluster.constraint=a|touch canary",
    "cluster.mem=4G --wrap=touch",
    "cluster.time=10\n#SBATCH --wrap=touch",
    "cluster.modules=['x; touch canary']",
    "cluster.extra=['--comment=$(touch canary)']",
    "cluster.extra=['--comment\ntouch canary=1']",
    "cluster.extra=['--wrap=touch']",
    "cluster.extra=['--job-name=mine']",
    "cluster.gpu_request=gpu:1;touch canary",
    "cluster.name=slurm;touch canary",
    "paths.runs={folder}/a\ntouch canary",
    "paths.runs={folder}/$(touch canary)",
    "paths.runs={folder}/`touch canary`",
    "paths.runs={folder}/'; touch canary; '",
    "paths.runs={folder}/%j",
    "ablation=../canary",
    "ablation=se;touch canary",
    "model=tnt_s\ntouch canary",
    "recipe.init=$(touch canary)",
)
ATTEMPT = """
import json, sys
from pipeline import launch
from pipeline.errors import UserError
settings, hostile = sys.argv[1:-1], json.loads(sys.argv[-1])
said = []
for text in hostile:
    try:
        said.append(launch.main(["cluster=slurm", *settings, text, "json=true"]))
    except UserError as error:
        said.append(str(error))
print("\\n" + json.dumps(said))
"""


def test_no_hostile_value_name_or_path_is_ever_run(slurm, lab, closed):
    hostile = [text.format(folder=lab.folder) for text in HOSTILE]
    said = json.loads(_python(lab, ATTEMPT, json.dumps(hostile)).splitlines()[-1])
    accepted = [text for text, answer in zip(hostile, said, strict=True) if not isinstance(answer, str)]
    assert accepted == []
    assert arrays(slurm) == set()
    assert not canaries(lab.folder)


@pytest.mark.nightly
def test_a_rehearsal_and_a_calibration_go_through_the_queue(slurm, ask, calls, tmp_path):
    words = ("recipe.epochs=100", "engine.device=cpu")
    [calibration] = submitted(ask(*words, "action=calibrate", "cost.seconds=0.5")).values()
    calls()
    said, _ = ask("recipe.epochs=100", "action=rehearse")
    assert calls().count("squeue") < 20  # it looks at the copies' files, not at the queue
    assert "of every step are those of a run left alone" in said["said"]
    assert not list(tmp_path.glob("runs/.rehearsals/*"))

    slurm.wait(lambda: slurm.state(calibration["job"]) == "COMPLETED", PATIENCE, "the calibration")
    [run] = ask(*words, "action=plan")[0]["runs"]
    assert run["state"] == "missing"
    assert run["cost"]["known"]
    assert run["cost"]["basis"].startswith("measured by a calibration of ")
    assert not arrays(slurm)
