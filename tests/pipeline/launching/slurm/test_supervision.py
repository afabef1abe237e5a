"""Which ends of ranks are followed by another start in the same job. tests/slurm has real ones."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.config.overrides import compose
from pipeline.errors import UserError, WorkFailed
from pipeline.launching.slurm import containers, job, launches, nodes, supervision
from pipeline.launching.slurm.launches import Launch
from pipeline.launching.slurm.supervision import RankStep, judge
from pipeline.processes.place import Place
from pipeline.processes.ranks import Ranks
from pipeline.runs import attempts
from pipeline.runs.attempts import AttemptLog, cause_of
from pipeline.runs.directory import write_config

ALONE = Ranks(Place("plain"))


def failed(directory, step, error=None, number=None, micro_batch=96):
    """An attempt that failed after this step."""
    log = AttemptLog(directory, number or attempts.next_number(directory))
    config = log.fitted(compose(["recipe.global_batch=96", f"engine.micro_batch={micro_batch}"]), ALONE)
    log.begin(1, ("n1",), Place("plain"))
    log.step = step
    log.fail("it broke", error)
    return log.number, config.engine.micro_batch


@pytest.fixture
def run(tmp_path):
    (tmp_path / "runs/0123456789ab").mkdir(parents=True)
    return tmp_path / "runs/0123456789ab"


def step(first, died=("", "")):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return RankStep(process, first, died)


def test_a_failure_is_followed_by_a_start_and_the_same_one_again_by_none(run):
    first, _ = failed(run, 7)
    again, why = judge(run, step(first), 1)
    assert again
    assert "it is started again in this job" in why
    second, _ = failed(run, 9)
    assert judge(run, step(second), 1)[0]  # it came further
    third, _ = failed(run, 9)
    again, why = judge(run, step(third), 1)
    assert not again
    assert "failed twice after step 9" in why


def test_what_a_user_has_to_change_is_not_tried_again(run):
    first, _ = failed(run, 0, UserError("recipe.lr is wrong"))
    assert judge(run, step(first), 2) == (False, "")
    assert judge(run, step(first + 1), 2) == (False, "")  # nor what has not even begun


def test_out_of_memory_halves_the_micro_batch_once(run):
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 60)
    first, size = failed(run, 0, real.value)
    assert size == 96
    again, why = judge(run, step(first), 1)
    assert again
    assert "micro-batch of 96; it goes on with half of it" in why
    assert attempts.remarks(run) == ["step 0: out of memory with a micro-batch of 96"]
    second, size = failed(run, 3, MemoryError())
    assert size == 48
    again, why = judge(run, step(second), 1)
    assert not again
    assert "out of memory again, with a micro-batch of 48" in why
    assert failed(run, 4, micro_batch=16)[1] == 16  # the user's own, which is less


@pytest.mark.parametrize(
    ("error", "cause"),
    [(torch.OutOfMemoryError("x"), "memory"), (UserError("x"), "input"), (WorkFailed("x"), ""), (None, "")],
)
def test_the_cause_of_a_failure_is_a_field(error, cause):
    assert cause_of(error) == cause


def test_ranks_that_were_killed_without_a_word_have_an_end_and_their_node_a_line(run):
    log = AttemptLog(run, 1)
    log.begin(2, ("n1", "n2"), Place("plain"))
    again, why = judge(run, step(1, ("n2", "Killed")), 137)
    assert again
    assert "killed on n2: Killed" in why
    assert nodes.failing(run.parent) == {}
    nodes.note(run.parent, "n2", "Killed, run x")
    assert list(nodes.failing(run.parent)) == ["n2"]
    [said] = nodes.said(run.parent)
    assert "n2 has failed 2 times" in said
    assert str(run.parent / ".launches/nodes.jsonl") in said


def test_out_of_a_nodes_memory_is_told_by_slurm(run):
    log = AttemptLog(run, 1)
    log.fitted(compose(["recipe.global_batch=96", "engine.micro_batch=96"]), ALONE)
    log.begin(1, ("n1",), Place("plain"))
    assert judge(run, step(1, ("n1", supervision.OUT_OF_MEMORY)), 137)[0]
    end = attempts.failures(run)[-1]
    assert (end.cause, end.micro_batch) == (attempts.MEMORY, 96)


def test_a_run_in_an_image_finds_its_files_at_their_own_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [f"paths.runs={tmp_path}/runs", f"paths.records={tmp_path}/runs/records", "data.root=/data/set"]
    plain = compose(paths)
    assert (containers.command(plain), containers.options(plain), containers.variables(plain)) == ([], [], {})
    for image in ("lab.sif", "docker://tnt/lab:1"):
        command = containers.command(compose([*paths, f"cluster.container={image}"]))
        assert command[:3] == ["apptainer", "exec", "--nv"]
        assert command[-3:] == ["--pwd", str(tmp_path), image]
        binds = [after for word, after in itertools.pairwise(command) if word == "--bind"]
        assert f"{tmp_path}/runs" in binds
        assert "/data/set" in binds
        assert f"{tmp_path}/runs/records" not in binds  # it lies in another
    pyxis = containers.options(compose([*paths, "cluster.container=/images/lab.sqsh"]))
    assert pyxis[0] == "--container-image=/images/lab.sqsh"
    assert f"{tmp_path}/runs:{tmp_path}/runs" in pyxis[1]
    assert "--nv" not in containers.command(compose([*paths, "cluster.container=a.sif", "engine.device=cpu"]))


@pytest.mark.parametrize("image", ["a b.sif", "a.sif;touch canary", "$(x).sif", "docker://x y"])
def test_an_images_name_is_no_command(image):
    with pytest.raises(UserError, match=r"cluster\.container"):
        compose([f"cluster.container='{image}'"])


def test_a_start_on_another_kind_of_device_is_said_in_log_and_record(run):
    said = [
        AttemptLog(run, number).begin(1, ("n",), Place("plain"), device)
        for number, device in enumerate(("A100", "A100", "H100", "H100"), 1)
    ]
    assert said == [[], [], ["from step 0 on H100, before on A100"], []]
    assert attempts.remarks(run) == ["from step 0 on H100, before on A100"]


def test_gpus_are_shared_by_mps_for_as_long_as_runs_are_trained(tmp_path, monkeypatch):
    """There is no GPU here: what NVIDIA's program would be told is kept."""
    program = tmp_path / job.MPS
    program.write_text(f'#!/bin/sh\necho "$@" $(cat) >> {tmp_path}/told\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with job.shared_gpus(True) as variables:
        assert Path(variables["CUDA_MPS_PIPE_DIRECTORY"]).is_dir()
        assert (tmp_path / "told").read_text().split() == ["-d"]
    assert (tmp_path / "told").read_text().split() == ["-d", "quit"]
    assert not Path(variables["CUDA_MPS_PIPE_DIRECTORY"]).exists()
    with job.shared_gpus(False) as variables:
        assert variables == {}


def test_who_shares_a_job_is_known(tmp_path):
    launch = Launch.begin(tmp_path, [letter * 12 for letter in "abcde"], pack=2)
    launch.settle("17")
    assert [launch.task(id) for id in launch.runs] == ["17_0", "17_0", "17_1", "17_1", "17_2"]
    assert launch.runs_of(2) == ("e" * 12,)
    [said] = launches.beside(tmp_path, ["b" * 12, "e" * 12])
    assert said.startswith(f"run {'a' * 12} shares a job")


@pytest.mark.parametrize(("mode", "file"), [(0o700, 0o600), (0o2770, 0o660)])
def test_what_runs_leave_is_their_owners_or_their_groups(tmp_path, mode, file):
    folder = tmp_path / "of-a-group"
    folder.mkdir()
    folder.chmod(mode)
    before = os.umask(0o002)
    try:
        path = write_config(compose([f"paths.runs={folder}"]), "a" * 12)
        AttemptLog(path.parent, 1).end(attempts.STOPPED)
        with launches.submitting(folder):
            Launch.begin(folder, ["a" * 12])
    finally:
        os.umask(before)
    found = {each.stat().st_mode & 0o777 for each in (path.parent, folder / launches.FOLDER)}
    assert found == {mode & 0o777}
    assert (path.parent / "attempts.jsonl").stat().st_mode & 0o777 == file
