"""Several runs of one ablation in one job, each with its own record and lease."""

import json

import pytest

from pipeline.runs import attempts
from tests.slurm.laboratory import PATIENCE

TABLE = ("ablation=inner_heads", "cluster.gpu_request=none", "cluster.pack=4")


def record(tmp_path, id):
    return json.loads((tmp_path / f"records/{id}.json").read_text())


def done(slurm, tmp_path, ids):
    paths = [tmp_path / f"records/{id}.json" for id in ids]
    said = lambda: [path.read_text()[-500:] for path in tmp_path.glob("runs/*/output.log")]  # noqa: E731
    slurm.wait(lambda: all(path.exists() for path in paths), 2 * PATIENCE, f"{ids} {said()}")


def test_a_table_is_one_packed_job(slurm, ask, tmp_path):
    submitted = ask(*TABLE)[0]["submitted"]
    ids, [job] = [one["id"] for one in submitted], {one["job"] for one in submitted}
    assert len(ids) == 4
    slurm.wait(lambda: all(attempts.holder(tmp_path / "runs" / id) for id in ids), PATIENCE, "four leases")
    assert {attempts.holder(tmp_path / "runs" / id).job for id in ids} == {job}
    [(cpus, tasks)] = {
        (one["NumCPUs"], one["NumTasks"]) for one in slurm.jobs() if one["JobState"] == "RUNNING"
    }
    assert (int(cpus) >= 4, tasks) == (True, "1")
    done(slurm, tmp_path, ids)
    assert {tuple(record(tmp_path, id)["jobs"]) for id in ids} == {(job,)}
    assert slurm.wait_for(job)["JobState"] == "COMPLETED"
    assert {one["state"] for one in ask(*TABLE, "action=status")[0]["runs"]} == {"done"}


@pytest.mark.nightly
def test_packed_runs_are_queued_again_by_their_job_once_all_have_ended(slurm, ask, tmp_path):
    words = (*TABLE, "cells=2,4", "recipe.epochs=2")
    submitted = ask(*words)[0]["submitted"]
    ids, [job] = [one["id"] for one in submitted], {one["job"] for one in submitted}
    steps = lambda id: list((tmp_path / f"runs/{id}/checkpoints").glob("step-*"))  # noqa: E731
    slurm.wait(lambda: all(map(steps, ids)), PATIENCE, "a checkpoint of each")
    slurm.run("scancel", "--signal=USR1", "--batch", job)
    slurm.wait(lambda: slurm.restarts(job) == 1, PATIENCE, "a requeue")
    done(slurm, tmp_path, ids)
    assert slurm.restarts(job) == 1
    assert {record(tmp_path, id)["attempts"] for id in ids} == {2}
    assert {tuple(record(tmp_path, id)["jobs"]) for id in ids} == {(job,)}


def test_a_plan_names_the_part_of_a_device_that_a_run_has(ask, capsys):
    runs = ask("ablation=inner_heads", "cluster.pack=4", "action=plan", "cluster.per_gpu_hour=2.5")[0]["runs"]
    [alone] = ask("ablation=inner_heads", "cells=2", "action=plan")[0]["runs"]
    packed = next(run["cost"] for run in runs if run["id"] == alone["id"])
    assert (packed["devices"], packed["share"], alone["cost"]["share"]) == (1, 4, 1)
    assert packed["seconds"] == pytest.approx(4 * alone["cost"]["seconds"])
    assert packed["money"] == pytest.approx(2.5 * packed["device_hours"])
    assert packed["kwh"] == pytest.approx(0.4 * packed["device_hours"])  # an A100 has 400 W
