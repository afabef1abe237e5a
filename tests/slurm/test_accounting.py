"""What runs used, by Slurm's own accounting: a cluster with slurmdbd and MariaDB."""

import json

import pytest

from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.launching.slurm import commands, preflight
from tests.slurm.accounting import AccountedCluster, missing_accounting
from tests.slurm.laboratory import PATIENCE, TINY

pytestmark = pytest.mark.nightly
ONE = ("ablation=inner_heads", "cells=2")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := missing_accounting():
        pytest.skip(reason)
    with AccountedCluster(tmp_path_factory.mktemp("accounted")) as cluster:
        yield cluster


def test_what_a_run_used_is_in_its_status_and_its_record(slurm, ask, tmp_path):
    words = (*ONE, "cluster.time=30", "cluster.gpus=2", "engine.device=auto", "cost.per_gpu_hour=3")
    [one] = ask(*words, "engine.micro_batch=48")[0]["submitted"]
    path = tmp_path / f"records/{one['id']}.json"
    slurm.wait(path.exists, 2 * PATIENCE, "the record")
    slurm.wait_for(one["job"])
    usage = json.loads(path.read_text())["usage"]
    assert usage["hours_by"] == "Slurm"
    assert usage["requested_hours"] == 0.5
    assert 0 < usage["hours"] < 0.5
    assert usage["gpu_hours"] == pytest.approx(2 * usage["hours"], rel=0.01)  # both, from the allocation on
    assert usage["cost"] == pytest.approx(3 * usage["gpu_hours"], rel=0.01)
    assert json.loads(path.read_text())["device_hours"] < usage["gpu_hours"]
    [at] = ask(*words, "engine.micro_batch=48", "action=status")[0]["runs"]
    assert at["usage"] == usage


def test_a_run_that_goes_on_says_what_it_used_so_far(slurm, ask):
    """Its memory is known once a step of Slurm's has ended."""
    words = (*ONE, "cluster.time=30", "cluster.gpus=1", "recipe.epochs=200")
    [one] = ask(*words)[0]["submitted"]
    now = lambda: ask(*words, "action=status")[0]["runs"][0]  # noqa: E731
    slurm.wait(lambda: now()["step"] and (now()["usage"] or {}).get("hours"), PATIENCE, "hours so far")
    at = now()
    assert (at["state"], at["usage"]["hours_by"], at["usage"]["memory_gb"]) == ("running", "Slurm", None)
    ask(*words, "action=cancel", "yes=true")
    slurm.wait_for(one["job"])
    at = now()
    assert at["state"] == "stopped"
    assert at["usage"]["memory_gb"] > 0.1


def test_a_time_that_the_quality_of_service_forbids_is_refused_and_a_start_expected(slurm, ask, closed):
    with pytest.raises(UserError, match=r"longer than qos normal allows → cluster\.time=12:00:00"):
        ask(*ONE, "cluster.time=1-00:00:00")
    slurm.run("scontrol", "update", "partitionname=main", "state=up")
    commands.site.cache_clear()
    config = compose([*TINY, "cluster.time=30"])
    assert preflight.expected_start(config).startswith("20")
    assert preflight.expected_start(config, "nope") == ""
