"""One cluster for all tests of this folder, which one worker runs."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import launch
from pipeline.launching.slurm import commands
from tests.pipeline.packed import pack_digits
from tests.slurm.cluster import Cluster
from tests.slurm.daemons import missing
from tests.slurm.laboratory import TINY

REQUIRED = "TNT_REQUIRE_SLURM"  # set in CI: what is skipped elsewhere fails there


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "" if os.environ.get(REQUIRED) else missing()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.xdist_group("slurm"))
            if reason:
                item.add_marker(pytest.mark.skip(f"NO SLURM, NOTHING OF IT IS TESTED: {reason}"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def slurm(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with all its nodes, and no job of another test on it."""
    yield cluster
    cluster.restore()


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    return pack_digits(tmp_path_factory.mktemp("sets") / "digits")


@pytest.fixture
def ask(slurm, shards, tmp_path, monkeypatch, capsys):
    """launch.py with these words: what it said as JSON, and how it ended."""
    monkeypatch.setenv("SLURM_CONF", slurm.env["SLURM_CONF"])
    settings = (*TINY, "cluster=slurm", f"paths.runs={tmp_path / 'runs'}", f"data.root={shards}")
    settings += (f"paths.records={tmp_path / 'records'}",)

    def ask(*words):
        capsys.readouterr()
        commands.site.cache_clear()
        status = launch.main([*settings, *words, "json=true"])
        out = capsys.readouterr().out
        return (json.loads(out) if out.startswith("{") else out), status

    ask.settings = settings
    return ask


@pytest.fixture
def closed(slurm):
    """The partition takes jobs and starts none."""
    slurm.run("scontrol", "update", "partitionname=main", "state=down")
    yield
    slurm.run("scontrol", "update", "partitionname=main", "state=up")


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Which of Slurm's commands were called since one last looked."""
    folder, log = tmp_path / "counted", tmp_path / "calls"
    folder.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "srun"):
        (folder / name).write_text(f'#!/bin/sh\necho {name} >> {log}\nexec {shutil.which(name)} "$@"\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def calls():
        found = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    return calls
