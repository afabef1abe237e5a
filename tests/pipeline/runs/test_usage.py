"""Hours, energy and money of a run, each with where it is known from."""

import json

import pytest

from pipeline.config.overrides import compose
from pipeline.processes import accounting
from pipeline.runs import usage
from pipeline.runs.log import spent

H100 = "NVIDIA H100 80GB HBM3"
# As sacct of Slurm 22.05 said of a requeued job of two GPUs.
SACCT = """\
17_3|REQUEUED|None|tnt|tnt-1|3600|60|billing=2,cpu=2,gres/gpu=2,mem=64G,node=1||
17_3.batch|CANCELLED||tnt|batch|3600||cpu=2,gres/gpu=2,mem=64G,node=1|1024K|500
17_3|COMPLETED|None|tnt|tnt-1|1800|60|billing=2,cpu=2,gres/gpu=2,mem=64G,node=1||7200000
17_3.0|COMPLETED||tnt|python|1790||cpu=2,gres/gpu=2,mem=64G,node=1|2G|18446744073709551614
18|CANCELLED by 1000|Reserved|tnt|other|0|UNLIMITED|||
"""


def test_accounts_of_all_starts_of_a_job_are_added():
    found = accounting.read(SACCT)
    job = found["17_3"]
    assert (job.state, job.name, job.seconds, job.limit, job.gpus) == ("completed", "tnt-1", 5400, 3600, 2)
    assert (job.memory, job.allowed, job.gpu_hours) == (2 << 30, 64 << 30, 3.0)
    assert job.joules == 500 + 7_200_000
    assert (found["18"].state, found["18"].reason, found["18"].limit) == ("cancelled", "Reserved", 0)


def test_a_run_is_charged_its_share_of_what_was_allocated():
    job = accounting.read(SACCT)["17_3"]
    found = usage.told(
        compose(["cluster.per_gpu_hour=2"]), [job], 1.0, device="NVIDIA H100 80GB HBM3", sharing=2
    )
    assert (found.gpu_hours, found.hours_by, found.cost) == (1.5, "Slurm", 3.0)
    assert (found.hours, found.requested_hours) == (1.5, 1.0)
    assert (found.kwh, found.energy_by) == (pytest.approx(7_200_500 / 3.6e6 / 2), "Slurm")
    counted = usage.told(compose([]), [job], 1.0, joules=7.2e6)
    assert (counted.kwh, counted.energy_by, counted.cost) == (2.0, "NVML", None)


def test_without_accounts_the_steps_count_and_the_data_sheet():
    found = usage.told(compose([]), [], 3.0, device=H100)
    assert (found.gpu_hours, found.hours_by, found.kwh) == (3.0, "steps", pytest.approx(2.1))
    assert found.energy_by == "data sheet of H100"
    unknown = usage.told(compose([]), [], 3.0, device="CPU of some kind")
    assert (unknown.kwh, unknown.energy_by) == (None, "")


def test_energy_is_what_the_counter_rose_by_within_each_attempt(tmp_path):
    rows = [
        {"step": 0, "time": 0.0, "start": 2, "steps": 9, "images": 8, "joules": 100.0},
        {"step": 4, "time": 10.0, "images_per_second": 5.0, "joules": 160.0},
        {"step": 4, "time": 90.0, "start": 2, "steps": 9, "images": 8, "joules": 5.0},  # the node booted
        {"step": 9, "time": 95.0, "images_per_second": 5.0, "joules": 25.0},
    ]
    (tmp_path / "timing.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert spent(tmp_path).joules == 2 * (60 + 20)
