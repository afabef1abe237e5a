"""What would fail is said before anything is submitted, with what helps. tests/slurm has a real Slurm."""

import pytest

from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.launching.slurm import commands, preflight
from tests.pipeline.launching.slurm.test_submission import planned_run


def test_where_there_is_no_slurm_the_other_way_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    commands.site.cache_clear()
    with pytest.raises(UserError, match="cluster=local"):
        preflight.check([planned_run()])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("UNLIMITED", None),
        ("90", 90),
        ("90:30", 90.5),
        ("1:30:00", 90),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("2-00:00:00", 2880),
    ],
)
def test_times_are_read_as_slurm_reads_them(text, expected):
    assert preflight.minutes(text) == expected


PARTITIONS = [
    {"PartitionName": "gpu", "MaxTime": "2-00:00:00", "Default": "YES", "MaxNodes": "4"},
    {"PartitionName": "short", "MaxTime": "1:00:00", "Default": "NO", "MaxNodes": "1"},
    {"PartitionName": "long", "MaxTime": "UNLIMITED", "Default": "NO", "MaxNodes": "UNLIMITED"},
]


@pytest.mark.parametrize(
    ("partition", "time", "cure"),
    [
        ("", "1-00:00:00", ""),
        ("", "3-00:00:00", "cluster.time=2-00:00:00"),
        ("short", "2:00:00", "cluster.time=1:00:00"),
        ("gpu,short", "2:00:00", ""),  # gpu has room for it
        ("gpu,short", "3-00:00:00", "cluster.time=2-00:00:00"),
        ("short,long", "9-00:00:00", ""),
        (
            "gpux",
            "2:00:00",
            "unknown cluster.partition 'gpux' (did you mean 'gpu'?): valid are gpu,",
        ),
    ],
)
def test_a_time_is_too_long_where_no_partition_allows_it(partition, time, cure):
    config = compose([f"cluster.partition='{partition}'", f"cluster.time='{time}'"])
    said = preflight.beyond(config, PARTITIONS)
    assert [cure in line for line in said] == ([True] if cure else [])


@pytest.mark.parametrize(
    ("partition", "cure"),
    [("", ""), ("short", "cluster.nodes=1"), ("short,gpu", ""), ("long", "")],
)
def test_more_nodes_than_any_partition_gives_are_refused(partition, cure):
    config = compose([f"cluster.partition='{partition}'", "cluster.nodes=4"])
    said = preflight.beyond(config, PARTITIONS)
    assert [cure in line for line in said] == ([True] if cure else [])


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("Invalid account or account/partition combination specified", "cluster.account"),
        ("invalid partition specified: gpus", "cluster.partition"),
        ("Requested node configuration is not available", "less of cluster.gpus"),
        ("something else", ""),
    ],
)
def test_a_refusal_comes_with_what_helps(said, cure):
    _, _, found = preflight.with_cure(f"sbatch: error: {said}").partition(" → ")
    assert found.startswith(cure)
    assert bool(found) == bool(cure)


def test_what_no_job_could_do_is_refused_before_it_waits(digits, tmp_path, monkeypatch):
    settings = {"ClusterName": "small", "MaxArraySize": "0"}
    monkeypatch.setattr(commands, "site", lambda: (settings, PARTITIONS))
    monkeypatch.setattr(preflight, "refused", lambda config: [])
    paths = [f"paths.{name}={tmp_path / name}" for name in ("runs", "records")]
    run = planned_run(f"data.root={digits.root}", *paths, f"recipe.init={'f' * 12}")
    with pytest.raises(UserError, match="no arrays of jobs") as error:
        preflight.check([run])
    assert f"init={'f' * 12}: there is no such run in {tmp_path / 'runs'}" in str(error.value)
    (tmp_path / "runs" / ("f" * 12)).mkdir()
    settings["MaxArraySize"] = "1001"
    assert preflight.check([run]) == settings


def test_damaged_and_missing_shards_are_named(tmp_path, digits):
    assert preflight.incomplete(str(tmp_path), "train")
    assert preflight.incomplete(str(digits.root), "train") == []


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    assert "paths.runs" in preflight.unwritable(tmp_path / "file" / "runs")[0]
    assert preflight.unwritable(tmp_path / "runs") == []


def test_remarks_say_how_runs_end_early_here(monkeypatch):
    monkeypatch.setenv("SBATCH_ACCOUNT", "theirs")
    not_used, said = preflight.remarks({"PreemptMode": "OFF"})
    assert not_used.startswith("SBATCH_ACCOUNT: not used")
    assert "none" in said
    monkeypatch.delenv("SBATCH_ACCOUNT")
    assert "SIGTERM" in preflight.remarks({"PreemptMode": "REQUEUE"})[0]
    kind = {"PreemptMode": "REQUEUE", "SlurmctldParameters": "x,preempt_send_user_signal"}
    assert "USR1" in preflight.remarks(kind)[0]
