"""slurm/*.sh as a cluster user gives them to sbatch: the same runs as launch.py's."""

import shutil
import subprocess

import pytest

from tests.pipeline.ranks import ROOT
from tests.slurm.laboratory import PATIENCE, Laboratory

FILES = sorted((ROOT / "slurm").glob("*.sh"))
SMALL = ("--export=NONE", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=2")
PRETRAINING = {
    "pretrain_tnt_s.sh": ("model=tnt_s",),
    "pretrain_tnt_s_se.sh": ("model=tnt_s", "model.se=outer"),
    "pretrain_tnt_b.sh": ("model=tnt_b",),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_batch_file_in_a_shell_says_that_it_is_for_sbatch(path):
    done = subprocess.run(["bash", path], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode != 0
    assert done.stderr.rstrip().endswith(f"SLURM_JOB_ID: is not set: start this file by sbatch {path}")


@pytest.mark.slow
def test_batch_files_do_what_they_say_and_their_runs_are_those_of_launch(slurm, tmp_path):
    lab = Laboratory(slurm, tmp_path, tmp_path / "digits")

    def batch(name, *words, options=SMALL):
        return lab.batch(*options, f"slurm/{name}", *words)

    def ends_well(job):
        ended = slurm.wait_for(job, seconds=PATIENCE)
        assert ended["JobState"] == "COMPLETED", f"{ended}\n{lab.said()}"
        return (lab.root / f"{ended['JobName']}-{job}.out").read_text()

    ends_well(batch("make_shards.sh", "digits", str(tmp_path / "digits"), options=("--cpus-per-task=2",)))
    ids, jobs = {}, {}
    for name, words in PRETRAINING.items():
        [run] = lab.ask(*words, "action=plan")["runs"]
        ids[name] = run["id"]
        options = (*SMALL, "--nodes=2") if name == "pretrain_tnt_b.sh" else SMALL
        jobs[name] = batch(name, *lab.settings, options=options)
    big, small, gated = (
        ids[name] for name in ("pretrain_tnt_b.sh", "pretrain_tnt_s.sh", "pretrain_tnt_s_se.sh")
    )
    lab.passes(gated, 2)
    slurm.run("scancel", "--signal=USR1", jobs["pretrain_tnt_s_se.sh"])
    lab.finished(small)
    more = (*lab.settings, "model=tnt_s", f"init={small}")
    tuning = batch("finetune.sh", *more)
    image = tmp_path / "image.sh"  # stands for one: what is started within it says so
    image.write_text('echo "in an image: $2"; exec "$@"\n')
    inside = (*SMALL[1:], f"--export=WITHIN=sh {image}")
    measuring = batch("evaluate.sh", f"run={small}", f"paths.runs={lab.runs}", options=inside)
    heads = ("ablation=inner_heads", "cells=2,4", "cluster.extra=['--hold']")  # its job need not train
    planning = batch("ablation.sh", *lab.settings, *heads, options=())

    for name, job in jobs.items():
        ends_well(job)
        assert lab.record(ids[name])["jobs"] == [job]
    assert lab.record(gated)["attempts"] == 2
    assert (lab.record(big)["world"], lab.record(small)["world"]) == (2, 1)
    measured = ends_well(measuring)
    assert f"{lab.record(small)['raw']['top1']:.3f}" in measured
    assert "in an image: pipeline/launching/slurm/rank.sh" in measured
    [tuned] = lab.ask("recipe=finetune_384", "model=tnt_s", f"init={small}", "action=status")["runs"]
    ends_well(tuning)
    assert lab.record(tuned["id"])["science"]["recipe"]["init"] == small
    said = ends_well(planning)
    other, state = lab.states("ablation=inner_heads", "cells=2").popitem()
    assert state == "pending"
    assert other in said
    assert f"({small}) is done" in said  # the other cell is TNT-S
    assert said.count("submitted") == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_batch_file_is_sound_shell(path):
    shell = path.read_text().splitlines()[0].removeprefix("#!")
    checks = [[shell, "-n"], *([["shellcheck"]] if shutil.which("shellcheck") else [])]
    for check in checks:
        done = subprocess.run([*check, path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
