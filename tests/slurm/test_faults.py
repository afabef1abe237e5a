"""Training as jobs of a real scheduler: whatever happens to them, they end to the bit where they would have.

What a run leaves (weights, their average, optimizer state, metrics) is compared with what an undisturbed one
of the same shape leaves. A run meets several faults in turn: a start takes longer than all of its steps.
"""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.digits import digits
from pipeline.files import rows
from tests.pipeline.ranks import ROOT
from tests.pipeline.small_runs import Left, Place
from tests.slurm.training import PATIENCE, Job

TINY = (
    "model.depth=1",
    "model.patch_dim=64",
    "model.outer_heads=2",
    "engine.zero_stage=1",
    "recipe.epochs=3",  # 42 steps: enough for all faults
)
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1")
FOUR_TASKS = ("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=2")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    make(digits(), folder, Packing(workers=1))
    return folder


@pytest.fixture(scope="module")
def gold(shards, tmp_path_factory):
    """What an undisturbed run of two ranks leaves; no scheduler has a part in it."""
    return Left.by(Place(tmp_path_factory.mktemp("gold"), shards).train(*TINY, world=2))


def preemption_during_imports(job):
    job.slurm.wait(lambda: len(job.ranks()) == 2 and all(map(_imports_torch, job.ranks().values())), PATIENCE)
    _preempt(job, "SIGUSR1")


def signalled_preemption(job):
    _preempt(job, "SIGUSR1")


def preemption_by_sigterm(job):
    job.slurm.send_user_signal(False)
    _preempt(job, "SIGTERM")


def time_limit(job):
    """Its last minutes begin at once: the script asks for a signal three minutes before the end."""
    hours, minutes, _ = (int(part) for part in job.slurm.job(job.id)["RunTime"].split(":"))
    log = job.slurm.folder / "log/slurmctld.log"
    warnings, ends = log.read_text().count("warning signal"), job.ends("SIGUSR1")
    with job.frozen():
        limit = 60 * hours + minutes + 2
        job.slurm.run("scontrol", "update", f"jobid={job.id}", f"timelimit={limit}")
        job.slurm.wait(lambda: log.read_text().count("warning signal") > warnings, PATIENCE, "a warning")
    job.slurm.wait(lambda: job.ends("SIGUSR1") > ends, PATIENCE, f"an end of job {job.id}")
    job.slurm.run("scontrol", "update", f"jobid={job.id}", "timelimit=60")


def _preempt(job, name):
    """Slurm wakes what it signals."""
    ends = job.ends(name)
    with job.frozen():
        job.urgent()
        job.slurm.wait(lambda: job.ends(name) > ends, PATIENCE, f"an end of job {job.id} by {name}")


def _imports_torch(pid):
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def lost_node(job):
    """That of rank 0 and of the batch script; two others are left."""
    job.slurm.kill_node(job.slurm.job(job.id)["BatchHost"])


def killed_rank(job):
    """All ranks end at once, and are started again in the same allocation."""
    before = len(job.starts())
    os.kill(job.ranks()[1], signal.SIGKILL)
    job.slurm.wait(lambda: len(job.starts()) > before, PATIENCE, "a start in the same job")


def controller_away(job):
    """Nothing happens to the job while the controller is down."""
    before = job.newest()
    job.slurm.restart_controller(lambda: job.newest() > before + 1, PATIENCE)


def cancelled_by_preemption(job):
    """The partition cancels what it preempts, without a moment's grace."""
    slurm = job.slurm
    slurm.preempts("CANCEL", grace=0)
    with job.frozen():
        slurm.run("scontrol", "update", f"jobid={job.id}", "requeue=1")
        job.urgent()
        slurm.wait(lambda: slurm.restarts(job.id), PATIENCE, "a job that takes itself back into the queue")
    slurm.preempts("REQUEUE", grace=30)


def suspended_for_longer_than_ranks_wait(job):
    """Then some of them give the others up."""
    job.slurm.run("scontrol", "suspend", job.id)
    job.slurm.wait_for(job.id, "SUSPENDED")
    clock = time.monotonic()
    job.slurm.wait(lambda: time.monotonic() - clock > TIMEOUT + 5, PATIENCE)
    job.slurm.run("scontrol", "resume", job.id)


def held(job):
    job.slurm.run("scontrol", "requeuehold", job.id)
    job.slurm.wait_for(job.id, "REQUEUE_HOLD", "PENDING")
    job.slurm.run("scontrol", "release", job.id)


def maintained(job):
    """No node is to be had until it is over."""
    slurm = job.slurm
    words = ("starttime=now", "duration=60", "nodes=ALL", "user=root", "flags=maint,ignore_jobs")
    slurm.run("scontrol", "create", "reservation", "reservationname=work", *words)
    slurm.run("scancel", "--signal=USR1", job.id)
    try:
        slurm.wait_for(job.id, "PENDING", seconds=PATIENCE)
        slurm.wait(lambda: "Reserved" in slurm.job(job.id)["Reason"], PATIENCE, "a reason")
    finally:
        slurm.run("scontrol", "delete", "reservationname=work")


FAULTS = (signalled_preemption, time_limit, controller_away, lost_node, killed_rank)


@pytest.mark.slow
@pytest.mark.timeout(900)  # five starts, and on a busy machine each takes half a minute
def test_a_job_ends_to_the_bit_where_it_would_have(slurm, shards, gold, tmp_path):
    job = Job(slurm, tmp_path, shards, *TWO_NODES)
    job.submit(*TINY)
    restarts = 0
    for fault in FAULTS:
        job.passes(2)
        fault(job)
        if fault not in (controller_away, killed_rank):
            restarts += 1
            job.starts_again(restarts)
    assert Left.by(job.complete()) == gold
    assert slurm.restarts(job.id) == restarts  # each fault started it once
    assert job.record["jobs"] == [job.id]
    assert job.record["events"] == []


TIMEOUT = 25  # seconds that ranks wait for each other
BY_NIGHT = (
    preemption_during_imports,
    preemption_by_sigterm,
    cancelled_by_preemption,
    suspended_for_longer_than_ranks_wait,
    held,
    maintained,
)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_a_job_ends_to_the_bit_where_it_would_have_on_other_sites_too(slurm, shards, gold, tmp_path):
    job = Job(slurm, tmp_path, shards, *TWO_NODES)
    job.submit(*TINY, f"cluster.timeout={TIMEOUT}", f"data.loading.timeout={TIMEOUT - 5}")
    restarts = 0
    for fault in BY_NIGHT:
        if fault is not preemption_during_imports:
            job.passes(2)
        fault(job)
        if fault is not suspended_for_longer_than_ranks_wait:
            restarts += 1
            job.starts_again(restarts)
    assert Left.by(job.complete()) == gold
    assert slurm.restarts(job.id) == restarts


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_job_with_a_node_to_spare_goes_on_without_the_one_that_is_lost(slurm, shards, gold, tmp_path):
    job = Job(slurm, tmp_path, shards, "--nodes=3", "--no-kill", *TWO_NODES[1:])
    job.submit(*TINY, "cluster.spare=1", "cluster.check=true")
    job.passes(2)
    before = len(job.starts())
    slurm.kill_node("n2")
    slurm.wait(lambda: len(job.starts()) > before, PATIENCE, "a start on the nodes that are left")
    slurm.start_node("n2")
    job.passes(2)
    slurm.kill_node("n1")  # its first one, on which the batch script runs
    slurm.start_node("n1")
    job.starts_again(1)
    assert Left.by(job.complete()) == gold
    [noted] = rows(job.directory.parent / ".launches/nodes.jsonl")
    assert noted["node"] == "n2"


# Memory that is full cannot be had on demand: here the engine says what PyTorch says then.
FULL = """import builtins, sys
before = builtins.__import__
def after(*words, **more):
    found, engine = before(*words, **more), sys.modules.get("pipeline.training.parallel.engine")
    if hasattr(engine, "Engine") and not hasattr(engine, "full"):
        engine.full, accumulate = True, engine.Engine.accumulate
        def full(self, images, *rest):
            if len(images) > {most}:
                import torch
                raise torch.OutOfMemoryError("CUDA out of memory")
            return accumulate(self, images, *rest)
        engine.Engine.accumulate = full
    return found
builtins.__import__ = after
"""


@pytest.mark.nightly
@pytest.mark.parametrize("most", [24, 5])
def test_out_of_memory_a_run_goes_on_once_with_half_of_the_micro_batch(slurm, shards, tmp_path, most):
    (tmp_path / "sitecustomize.py").write_text(FULL.format(most=most))
    job = Job(slurm, tmp_path, shards, *TWO_NODES, f"--export=ALL,PYTHONPATH={tmp_path}")
    job.submit(*TINY, "recipe.epochs=2", "engine.micro_batch=48")
    ended = slurm.wait_for(job.id, seconds=2 * PATIENCE)
    said = re.findall(r"run \w{12}: (out of memory.*)", job.said())
    assert said[0] == "out of memory with a micro-batch of 48; it goes on with half of it"
    if most == 24:
        assert ended["JobState"] == "COMPLETED"
        assert (job.record["layout"]["micro_batch"], job.record["attempts"]) == (24, 2)
        assert job.record["events"] == ["step 0: out of memory with a micro-batch of 48"]
    else:
        assert ended["JobState"] == "FAILED"
        assert said[1] == "out of memory again, with a micro-batch of 24"


ASK = """import signal, time; from pipeline.processes.place import find_place, preempted; asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(preempted(find_place())))
print("ready", flush=True)
while not asked: time.sleep(0.05)
print("preempted", asked[0], flush=True)
"""


@pytest.mark.parametrize("by", ["scancel", "an urgent job"])
def test_a_job_tells_a_preemption_from_its_cancellation(slurm, tmp_path, by):
    """Both come as SIGTERM. To requeue a cancelled job would bring it back."""
    out = tmp_path / "out.txt"
    out.touch()
    (tmp_path / "ask.py").write_text(ASK)
    script = f"#!/bin/bash\nexport PYTHONPATH={ROOT}\nsrun python {tmp_path / 'ask.py'}\n"
    job = slurm.submit("--output", str(out), "--exclusive", script=script)
    slurm.wait(lambda: "ready" in out.read_text(), PATIENCE, "the task")
    if by == "scancel":
        slurm.run("scancel", job)
    else:
        slurm.send_user_signal(False)
        slurm.submit("--partition=urgent", "--nodes=3", "--exclusive", "--wrap", "true")
    slurm.wait(lambda: "preempted " in out.read_text(), PATIENCE, "an answer")
    assert f"preempted {by == 'an urgent job'}" in out.read_text()


TELL = """import dataclasses, json, torch; from pipeline.processes.place import find_place
from pipeline.processes.ranks import joined
place = find_place()
with joined(place, torch.device("cpu"), 60) as ranks:
    print(json.dumps(dataclasses.asdict(place) | {"all": ranks.gather(place.rank)}))"""


def test_every_rank_knows_its_place_and_meets_the_others(slurm, tmp_path):
    """Node names mean nothing outside this Slurm, so the ranks meet at the launching node's address."""
    script = f"#!/bin/bash\ncd {ROOT}\nsrun --label {sys.executable} -c '{TELL}'\n"
    job = slurm.submit("--output", str(tmp_path / "out.txt"), *FOUR_TASKS, script=script)
    assert slurm.wait_for(job)["JobState"] == "COMPLETED"
    said = dict(line.split(": ", 1) for line in (tmp_path / "out.txt").read_text().splitlines())
    places = [json.loads(said[str(rank)]) for rank in range(4)]
    assert [place["rank"] for place in places] == [0, 1, 2, 3]
    assert [place["local_rank"] for place in places] == [0, 1, 0, 1]
    shared = {
        "all": [0, 1, 2, 3],
        "launcher": "slurm",
        "world": 4,
        "master": "127.0.0.1",
        "job": job,
        "restarts": 0,
    }
    for place in places:
        assert place.items() >= shared.items()
        assert place["port"] == places[0]["port"] > 0
