"""What other shells, other people and worse days do to launch.py, which is called in this process."""

import json
import os
import shutil
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from pipeline import launch
from pipeline.config.overrides import compose
from pipeline.errors import UserError, WorkFailed
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import commands, doctor, preflight
from pipeline.processes.place import Place
from pipeline.processes.ranks import Ranks
from pipeline.runs.attempts import AttemptLog
from pipeline.train import requeue_or_fail
from tests.pipeline.ranks import ROOT
from tests.slurm.daemons import processes
from tests.slurm.laboratory import PATIENCE, TINY, Laboratory

TWO = ("ablation=inner_heads", "cells=2,4")
ONE = ("ablation=inner_heads", "cells=2")


def alive(slurm):
    return [job for job in slurm.jobs() if job["JobState"] in ("PENDING", "RUNNING")]


def states(answer):
    runs, _ = answer
    return {run["id"]: run["state"] for run in runs["runs"]}


SHELL = {
    "SBATCH_PARTITION": "urgent",
    "SBATCH_JOB_NAME": "mine",
    "SBATCH_ARRAY_INX": "0-9",
    "SBATCH_EXPORT": "NONE",
    "SQUEUE_USERS": "nobody",
    "SQUEUE_STATES": "RUNNING",
    "SQUEUE_PARTITION": "urgent",
    "SCANCEL_STATE": "RUNNING",
    "SCANCEL_NAME": "mine",
}


def test_variables_of_the_shell_decide_nothing(slurm, ask, closed, monkeypatch):
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    (first, _), (again, _) = ask(*TWO), ask(*TWO)
    assert [one["new"] for one in (*first["submitted"], *again["submitted"])] == [True] * 2 + [False] * 2
    [job] = alive(slurm)  # an array that waits is one line
    assert (job["Partition"], job["ArrayTaskId"], job["Requeue"]) == ("main", "0-1%2", "1")
    assert job["JobName"].startswith("inner_heads-")
    assert set(states(ask(*TWO, "action=status")).values()) == {"pending"}
    ask(*TWO, "action=cancel", "yes=true")
    assert alive(slurm) == []


def test_a_job_of_another_name_is_not_a_runs_whatever_its_number(slurm, ask, closed, tmp_path):
    """The controller has lost its state and counts from 1 again."""
    [one] = ask(*ONE)[0]["submitted"]
    slurm.run("scancel", one["job"])
    stranger = slurm.submit("--array=0-1", "--wrap", "true")
    [noted] = (tmp_path / "runs").glob(".launches/*/job")
    noted.write_text(f"{stranger}\n")
    place = Place("slurm", job=f"{stranger}_1", job_name="tnt-s", cluster="tnt")
    AttemptLog(tmp_path / "runs" / one["id"], 1).begin(1, ("n1",), place)
    assert states(ask(*ONE, "action=status")) == {one["id"]: "broken"}
    said, status = ask(*ONE, "action=cancel", "yes=true")
    assert (said, status) == ("none of these runs is at work\n", 0)
    assert [job["ArrayTaskId"] for job in alive(slurm)] == ["0-1"]


def test_nodes_that_are_away_are_waited_for_and_what_no_node_has_is_refused(
    slurm, ask, shards, tmp_path, capsys
):
    words = (*TINY, f"data.root={shards}", f"paths.runs={tmp_path}", f"paths.records={tmp_path}")
    kinds = [PlannedRun(compose([*words, f"cluster.gpus={gpus}"]), str(gpus) * 12) for gpus in (1, 2)]
    slurm.run("scontrol", "update", "nodename=ALL", "state=drain", "reason=test")
    try:
        assert [one["new"] for one in ask(*ONE)[0]["submitted"]] == [True]
        preflight.check(kinds)
        assert capsys.readouterr().err.count("3 of the cluster's nodes are away now") == 2
        assert list(states(ask(*ONE, "action=status")).values()) == ["pending"]
    finally:
        slurm.run("scontrol", "update", "nodename=ALL", "state=resume")
    kinds.append(PlannedRun(compose([*words, "cluster.gpus=12"]), "c" * 12))
    with pytest.raises(UserError, match=r"(?s)nothing was submitted.*less of cluster\.gpus"):
        preflight.check(kinds)


def test_a_controller_that_is_away_is_no_answer(slurm, ask, closed, monkeypatch, capsys):
    [one] = ask(*ONE)[0]["submitted"]
    monkeypatch.setattr(commands, "PATIENCE", 1.0)
    slurm.stop_controller()
    try:
        runs, status = ask(*ONE, "action=status")
        assert ([run["state"] for run in runs["runs"]], status) == (["unknown"], 1)
        for action in ("action=cancel", "action=submit"):
            with pytest.raises(WorkFailed, match="ask again later") as error:
                ask(*ONE, action, "yes=true")
            assert error.value.exit_status == 1
    finally:
        slurm.start_controller()
    assert states(ask(*ONE, "action=status")) == {one["id"]: "pending"}


FULL = """#!/bin/sh
# The site lets a user have three jobs in the queue.
for last; do :; done
tasks=$(($(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%.*/\\1/p' "$last") + 1))
before=$(cat {count} 2>/dev/null || echo 0)
if [ $((before + tasks)) -gt 3 ]; then
    echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2
    echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy' >&2
    exit 1
fi
echo $((before + tasks)) > {count}
exec {sbatch} "$@"
"""


def test_a_job_that_slurm_holds_waits_for_somebody_and_gets_no_second_beside_it(slurm, ask):
    [one] = ask(*ONE)[0]["submitted"]
    slurm.wait_for(one["job"], "RUNNING")
    slurm.run("scontrol", "requeuehold", "State=SpecialExit", one["job"])
    slurm.wait(lambda: slurm.state(one["job"]) == "SPECIAL_EXIT", PATIENCE, "the hold")
    [run] = ask(*ONE, "action=status")[0]["runs"]
    assert run["state"] == "pending"
    assert f"`scontrol release {one['job']}` lets it start" in run["where"]
    assert [again["new"] for again in ask(*ONE)[0]["submitted"]] == [False]


def test_as_many_runs_are_submitted_as_the_site_takes_and_that_is_said(
    slurm, ask, closed, tmp_path, monkeypatch
):
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/sbatch"
    script.write_text(FULL.format(count=tmp_path / "count", sbatch=shutil.which("sbatch")))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    seeds = (*ONE, "seeds=0,1,2,3,4")
    with pytest.raises(WorkFailed, match=r"MaxSubmitJobLimit.*3 runs were submitted before, 2 were not"):
        ask(*seeds)
    assert sorted(states(ask(*seeds, "action=status")).values()) == ["missing"] * 2 + ["pending"] * 3
    monkeypatch.undo()
    monkeypatch.setenv("SLURM_CONF", slurm.env["SLURM_CONF"])
    assert sum(one["new"] for one in ask(*seeds)[0]["submitted"]) == 2


def test_a_run_is_submitted_behind_its_job_that_was_cancelled_and_still_ends(slurm, ask):
    [first] = ask(*ONE)[0]["submitted"]
    slurm.wait(lambda: processes(slurm.folder, daemons=False), PATIENCE, "the job's processes")
    ask(*ONE, "action=cancel", "yes=true")
    [second] = ask(*ONE)[0]["submitted"]
    assert second["new"]
    assert second["job"] != first["job"]
    waits_for = slurm.job(second["job"])["Dependency"]
    assert f"afterany:{first['job']}" in waits_for or slurm.state(first["job"]) == "CANCELLED"


@pytest.mark.slow
def test_a_doctor_finds_what_runs_would_meet_and_writes_a_profile_that_works(
    slurm, ask, shards, tmp_path, monkeypatch
):
    lab = Laboratory(slurm, tmp_path, shards)
    lab.runs.mkdir()
    said = lab.ask("action=doctor")
    assert said["problems"] == []
    found = dict(said["found"])
    assert "3 nodes" in found["partition main (default)"]
    assert "gpu:8" in found["partition main (default)"]
    assert "this Python with torch" in found["a node"]
    assert "forgotten after" in found["accounting"]
    assert said["profile"] == str(lab.root / "pipeline/conf/cluster/tnt.yaml")
    [run] = lab.ask("action=plan", "cluster=tnt")["runs"]
    assert run["state"] == "missing"
    (lab.root / "pipeline/conf/cluster/tnt.yaml").write_text("name: slurm  # ours\n")
    monkeypatch.setattr(doctor, "FOLDER", lab.root / "pipeline/conf")
    monkeypatch.setattr(preflight, "lacking", lambda config: ["a node lacks torch"])
    again, status = ask("action=doctor")
    assert (again["text"], again["problems"], status) == (said["text"], ["a node lacks torch"], 1)
    assert "ours" in (lab.root / "pipeline/conf/cluster/tnt.yaml").read_text()


def test_a_requeue_that_slurm_refuses_is_told_in_its_words(slurm, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", slurm.env["SLURM_CONF"])
    job = slurm.submit("--hold", "--wrap", "true")
    with pytest.raises(WorkFailed, match=f"job {job} could not be requeued: .*pending"):
        requeue_or_fail(Ranks(Place("slurm", job=job)), "ended by SIGUSR1 after step 5")


class Post(BaseHTTPRequestHandler):
    """Keeps what it is told."""

    told: ClassVar[list[dict[str, str]]] = []

    def do_POST(self):
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_whoever_submitted_a_run_is_told_that_it_failed(slurm, ask, closed, shards, tmp_path):
    mine = shutil.copytree(shards, tmp_path / "shards")
    with ThreadingHTTPServer(("127.0.0.1", 0), Post) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"notify=json://127.0.0.1:{server.server_address[1]}"
        [one] = ask(*ONE, f"data.root={mine}", address)[0]["submitted"]
        shutil.rmtree(mine)
        mine.touch()  # where digits could be made again
        slurm.run("scontrol", "update", "partitionname=main", "state=up")
        [said] = slurm.wait(lambda: Post.told, PATIENCE, "a message")
        server.shutdown()
    assert said["title"] == "tnt: inner_heads/2 failed"
    assert f"run {one['id']}, job {one['job']}" in said["message"]
    assert slurm.wait_for(one["job"])["JobState"] == "FAILED"  # the message does not change how it ends


def test_a_rehearsal_whose_terminal_is_lost_leaves_no_job(slurm, shards, tmp_path, closed):
    lab = Laboratory(slurm, tmp_path, shards)
    process = lab.start("action=rehearse")
    [job] = slurm.wait(lambda: alive(slurm), PATIENCE, "the rehearsal's job")
    assert job["TimeLimit"] == "00:30:00"
    [noted] = lab.runs.glob(".rehearsals/*/*/.launches/*/launch.json")
    assert json.loads(noted.read_text())["starts"] > 0
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE) == 128 + signal.SIGHUP
    assert alive(slurm) == []


def test_options_of_sbatch_are_taken_as_they_are_typed_and_squeue_tells_the_cells(slurm, ask, closed):
    ask(*TWO, "cluster.extra=--exclude=n[1-2] --mail-type=NONE --nice=5")
    [job] = alive(slurm)
    assert (job["ExcNodeList"], job["Nice"], job["Comment"]) == (
        "n[1-2]",
        "5",
        "inner_heads/2, inner_heads/4",
    )


def test_a_batch_file_that_waits_is_its_runs_job(slurm, ask, closed):
    """Given to sbatch from anywhere."""
    job = slurm.submit(str(ROOT / "slurm/pretrain_tnt_b.sh"), *ask.settings, cwd="/")
    [run] = ask("model=tnt_b", "action=status")[0]["runs"]
    assert (run["state"], run["where"].split(" (")[0]) == ("pending", f"job {job}")
    assert [one["new"] for one in ask("model=tnt_b")[0]["submitted"]] == [False]
    assert [run["state"] for run in ask("model=tnt_s", "action=status")[0]["runs"]] == ["missing"]
    ask("model=tnt_b", "action=cancel", "yes=true")
    assert slurm.state(job) == "CANCELLED"


@pytest.mark.slow
def test_a_scheduler_is_asked_little_however_many_runs_there_are(slurm, ask, closed, calls, monkeypatch):
    many = (*ONE, "seeds=0..199")
    assert len(ask(*many, "action=plan")[0]["runs"]) == 200
    assert calls() == ["squeue"]
    assert len(ask(*many)[0]["submitted"]) == 200
    assert sorted(calls()) == ["sbatch", "scontrol", "squeue"]
    assert set(states(ask(*many, "action=status")).values()) == {"pending"}
    assert calls() == ["squeue"]
    for _ in range(2):  # two shells
        looks = [signal.SIGINT, *[signal.SIGWINCH] * 4]  # the last ends it
        with monkeypatch.context() as patch:
            patch.setattr(launch.time, "sleep", lambda _, looks=looks: signal.raise_signal(looks.pop()))
            with pytest.raises(KeyboardInterrupt):
                ask(*many, "action=status", "watch=true")
    assert calls() == []  # what status was told a moment ago is good enough
    ask(*many, "action=cancel", "yes=true")
    assert sorted(calls()) == ["scancel", "squeue"]
