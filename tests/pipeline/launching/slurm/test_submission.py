"""What is handed to Slurm, without one: tests/slurm has a real one."""

import dataclasses
import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from pipeline.config.identity import science
from pipeline.config.machine import ClusterConfig
from pipeline.config.overrides import compose
from pipeline.config.typed import build
from pipeline.errors import UserError, WorkFailed
from pipeline.files import PACKAGE
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import arrays, commands, job, launches, resources, submission
from pipeline.launching.slurm.launches import Launch
from pipeline.runs.directory import with_whole_paths


def planned_run(*overrides, after="", id="0123456789ab"):
    return PlannedRun(compose(overrides), id, after=after)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), (1, 8, 5)),  # Table 3's batch of 1024 at 128 a GPU
        (("recipe=finetune_384",), (1, 4, 5)),
        (("recipe=finetune_fine_grained",), (1, 2, 5)),
        (("scale=demo",), (1, 1, 1)),
        (("cluster.nodes=2",), (2, 4, 5)),
        (("cluster.nodes=2", "cluster.gpus=8", "cluster.cpus=12"), (2, 8, 12)),
        (("engine.micro_batch=64",), (1, 8, 5)),  # no more than a node has
        (("recipe.global_batch=960", "data.augmentation.mixup=0"), (1, 6, 5)),  # 7 would not divide it
        (("engine.device=cpu",), (1, 1, 5)),
    ],
)
def test_a_run_gets_the_nodes_gpus_and_cores_that_it_needs(overrides, expected):
    found = resources.allocation(compose(overrides))
    assert (found.nodes, found.tasks, found.cpus) == expected


def test_a_world_that_does_not_divide_the_batch_is_refused_with_the_nearest_that_do():
    with pytest.raises(UserError, match=r"7 ranks .* nearest world sizes that can: .*8"):
        resources.allocation(compose(["cluster.gpus=7"]))


def test_options_are_those_of_the_profile():
    words = ["cluster.partition=gpu", "cluster.account=a", "cluster.time=1-00:00:00", "cluster.lead=300"]
    found = resources.parameters(compose([*words, "cluster.extra=['--exclude=n7','--exclusive']"]))
    assert found == {
        "nodes": 1,
        "ntasks-per-node": 8,
        "cpus-per-task": 5,
        "partition": "gpu",
        "account": "a",
        "time": "1-00:00:00",
        "signal": "USR1@300",
        "requeue": True,
        "gres": "gpu:8",
        "exclude": "n7",
        "exclusive": True,
    }
    assert resources.parameters(compose(["cluster.gpu_request=gpus-per-node"]))["gpus-per-node"] == 8
    without = resources.parameters(compose(["cluster.gpu_request=none"]))
    assert not {"gres", "gpus-per-node"} & set(without)


SITES = sorted((PACKAGE.parent / "docs/sites").glob("*.yaml"))


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.stem)
def test_a_profile_of_the_docs_is_one_and_is_listed(path):
    site = build(ClusterConfig, yaml.safe_load(path.read_text()), "cluster")
    options = resources.parameters(dataclasses.replace(compose([]), cluster=site))
    assert options["partition"] == site.partition
    assert bool({"gres", "gpus-per-node"} & set(options)) == (site.gpu_request != "none")
    assert f"[{path.name}]({path.name})" in (path.parent / "README.md").read_text()


def test_options_by_which_jobs_are_found_again_are_not_a_profiles():
    with pytest.raises(UserError, match="--job-name"):
        resources.parameters(compose(["cluster.extra=['--job-name=mine']"]))


def test_an_array_holds_runs_that_ask_for_the_same_and_start_from_the_same():
    runs = [
        planned_run(id="a" * 12),
        planned_run("recipe=finetune_384", id="b" * 12),
        planned_run(id="c" * 12),
        planned_run("recipe=finetune_384", id="d" * 12, after="a" * 12),
        planned_run("recipe=finetune_384", id="e" * 12, after="c" * 12),
        planned_run("recipe=finetune_384", id="f" * 12, after="a" * 12),
        *[planned_run(id=f"{number:012}") for number in range(5)],
    ]
    found = [[run.id[-1] for run in group] for group in submission.groups(runs, 4)]
    assert found == [["a", "c", "0", "1"], ["2", "3", "4"], ["b"], ["d", "f"], ["e"]]


def test_the_batch_script_appends_requeues_and_gives_a_failed_run_no_other_rank(tmp_path, monkeypatch):
    sbatch = tmp_path / "bin" / "sbatch"  # keeps what it is given
    sbatch.parent.mkdir()
    sbatch.write_text(f'#!/bin/sh\ncp "$1" {tmp_path}/given && echo Submitted batch job 17\n')
    sbatch.chmod(0o755)
    (sbatch.parent / "srun").symlink_to(sbatch)  # submitit looks for it
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=os.pathsep)
    runs = [planned_run("cluster.modules=[cuda/12.4]", id="a" * 12), planned_run(id="b" * 12)]
    launch = Launch.begin(tmp_path / "runs", [run.id for run in runs])
    executor, command = arrays.batch(launch, runs, tmp_path / "some code", ["17_3", "16_0"])
    assert executor.submit_tasks(command, len(runs)) == "17"
    lines = (tmp_path / "given").read_text().splitlines()
    assert "#SBATCH --dependency=afterany:17_3:16_0" in lines
    assert "#SBATCH --array=0-1%2" in lines
    assert "#SBATCH --open-mode=append" in lines
    assert "#SBATCH --requeue" in lines
    assert "#SBATCH --signal=USR1@120" in lines
    assert f"#SBATCH --job-name={launch.directory.name}" in lines
    assert "module load cuda/12.4" in lines
    assert f"cd '{tmp_path}/some code'" in lines
    assert "#SBATCH --cpus-per-task=5" in lines
    assert f"exec sh {resources.RANK} -m pipeline.launching.slurm.job {launch.directory}" in lines
    assert (PACKAGE.parent / resources.RANK).is_file()
    assert "pickle" not in "\n".join(lines)
    assert "--time" not in "\n".join(lines)  # the partition's, as nobody said one


@pytest.mark.parametrize("lost", ["module", "code"])
def test_without_its_module_or_its_code_a_job_runs_nothing_else(tmp_path, lost):
    """It starts in the working tree, which may have been edited since."""
    (tmp_path / "code").mkdir()
    launch = Launch.begin(tmp_path / "runs", ["a" * 12])
    modules = "cluster.modules=[cuda/12.4]" if lost == "module" else "cluster.modules=[]"
    code = tmp_path / ("code" if lost == "module" else "purged")
    executor, command = arrays.batch(launch, [planned_run(modules)], code)
    script = tmp_path / "job.sh"
    script.write_text(
        executor._make_submission_file_text(command, "0").replace("\nexec sh ", "\necho trains ")
    )
    done = subprocess.run(["bash", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "trains" not in done.stdout
    assert ("module" if lost == "module" else "purged") in done.stderr


def test_submitits_private_methods_are_used_in_the_version_that_they_were_read_in():
    assert version("submitit") == arrays.READ_FROM, (
        "read arrays.py beside the new version, then change READ_FROM"
    )


@pytest.mark.parametrize("text", ["a\nb", "a%jb", 'a"b', "a'b", "a\\b", "a$b", "a`b", "a\x7fb", ""])
def test_a_path_that_slurm_or_a_shell_would_read_otherwise_is_refused(text):
    with pytest.raises(UserError, match="cannot be handed to Slurm"):
        submission.check_path(Path(f"/runs/{text}") if text else Path("\n"))
    submission.check_path(Path("/runs/a b;c#d&(e)"))


def test_of_all_who_note_a_launchs_job_the_first_decides(tmp_path):
    launch = Launch.begin(tmp_path, ["a" * 12])
    assert launch.job is None
    assert launch.settle("17") == "17"
    assert launch.settle("18") == "17"
    assert launches.read(launch.directory) == launch
    assert launches.read_all(tmp_path) == [launch]
    assert launch.task("a" * 12) == "17_0"
    given_up = Launch.begin(tmp_path, ["b" * 12])
    assert given_up.settle(launches.LOST) == ""
    assert given_up.settle("19") == ""


def test_a_job_that_was_to_start_a_few_times_starts_no_more(tmp_path, monkeypatch, capsys):
    """As a rehearsal's, which would train its whole run if nobody ended it."""
    launch = Launch.begin(tmp_path, ["a" * 12], starts=2)
    variables = {"JOB_ID": "18", "ARRAY_JOB_ID": "17", "ARRAY_TASK_ID": "0", "RESTART_COUNT": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert job.main([str(launch.directory)]) == 0
    assert "does nothing" in capsys.readouterr().out
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(UserError, match="config"):  # it begins
        job.main([str(launch.directory)])


def test_a_launch_under_another_name_does_not_count(tmp_path, capsys):
    launch = Launch.begin(tmp_path, ["a" * 12])
    copy = shutil.copytree(launch.directory, launch.directory.with_name("tnt-copy"))
    with pytest.raises(UserError, match="renamed"):
        launches.read(copy)
    empty = Launch.begin(tmp_path, ["b" * 12])
    (empty.directory / "launch.json").write_text("")
    assert launches.read_all(tmp_path) == launches.read_all(tmp_path) == [launch]  # it is no stop for others
    warned = capsys.readouterr().err.splitlines()
    assert sorted(line.split(" is no launch")[0] for line in warned) == [
        f"warning: {path}" for path in sorted((copy, empty.directory))
    ]


def test_where_no_launch_can_be_noted_that_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"paths\.runs"), launches.submitting(tmp_path / "file"):
        pass


def test_only_jobs_are_named_to_slurm():
    with pytest.raises(WorkFailed, match="no job"):
        commands.cancel(["17; touch canary"])


def test_a_config_carries_whole_paths_into_a_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = compose(["data.stage=local"])
    whole = with_whole_paths(config)
    assert whole.paths.runs == str(tmp_path / "runs")
    assert whole.data.stage == str(tmp_path / "local")
    assert science(whole) == science(config)
    assert dataclasses.replace(whole, paths=config.paths, data=config.data) == config
