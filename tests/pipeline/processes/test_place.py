"""A process finds its place under every launcher, and the others with it."""

import json
import os
import subprocess
import sys

import pytest

from pipeline.errors import UserError
from pipeline.processes.device import find_device
from pipeline.processes.place import PORTS, Place, cores_of_process, find_place, first_node, requeue
from tests.pipeline.ranks import environment, finish, run_ranks, start

SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "localhost",
}
TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node7",
    "MASTER_PORT": "29500",
}


def test_a_process_by_itself():
    assert find_place({}) == Place("plain")


def test_under_torchrun():
    assert find_place(TORCHRUN) == Place("torchrun", 1, 2, 1, "node7", 29500)


def test_torchrun_inside_of_srun_decides():
    place = find_place({**SLURM, **TORCHRUN})
    assert (place.launcher, place.rank, place.world, place.job) == ("torchrun", 1, 2, "4711")


@pytest.mark.parametrize("missing", TORCHRUN)
def test_half_of_torchruns_variables_are_refused_by_name(missing):
    left = {name: value for name, value in TORCHRUN.items() if name != missing}
    if missing in ("RANK", "WORLD_SIZE"):
        left.pop({"RANK": "LOCAL_RANK", "WORLD_SIZE": "MASTER_PORT"}[missing])
    with pytest.raises(UserError, match=rf"not .*{missing}.*srun"):
        find_place(left)


def test_a_place_that_is_no_number_is_refused_by_name():
    with pytest.raises(UserError, match="RANK in the environment: 'one' is no number"):
        find_place({**TORCHRUN, "RANK": "one"})
    with pytest.raises(UserError, match="rank 2 of 2"):
        find_place({**TORCHRUN, "RANK": "2"})


def test_under_srun():
    place = find_place(SLURM)
    assert (place.launcher, place.rank, place.world, place.local_rank) == ("slurm", 5, 8, 1)
    assert (place.master, place.job, place.restarts) == ("localhost", "4711", 0)
    assert place.port in PORTS


def test_every_rank_finds_the_same_port_and_every_attempt_another():
    places = [find_place({**SLURM, "SLURM_PROCID": str(rank)}) for rank in range(8)]
    assert len({place.port for place in places}) == 1
    again = find_place({**SLURM, "SLURM_RESTART_COUNT": "1"})
    assert again.restarts == 1
    assert again.port != places[0].port


def test_a_task_of_an_array_is_named_as_scontrol_takes_it():
    env = {**SLURM, "SLURM_ARRAY_JOB_ID": "4700", "SLURM_ARRAY_TASK_ID": "3"}
    assert find_place(env).job == "4700_3"


def test_a_python_in_a_batch_script_is_one_process():
    env = {name: value for name, value in SLURM.items() if "STEP" not in name}
    assert find_place({**env, "SLURM_PROCID": "0"}) == Place("plain", job="4711")


def test_a_node_that_only_slurm_can_name_is_reached_by_address():
    env = {
        **SLURM,
        "SLURM_STEP_NODELIST": "no-such-host.invalid",
        "SLURM_LAUNCH_NODE_IPADDR": "192.0.2.7",
    }
    assert find_place(env).master == "192.0.2.7"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("gpu[07-09,12],login2", "gpu07"),
        ("rack-a[1,4]", "rack-a1"),
        ("n[3-4].site.org", "n3.site.org"),
        ("", ""),
    ],
)
def test_the_first_node_of_a_list(nodes, first):
    assert first_node(nodes) == first


TALK = """
import json, os
import torch
from pipeline.processes.device import device_name, find_device
from pipeline.processes.place import find_place
from pipeline.processes.ranks import joined
place = find_place()
with joined(place, find_device("auto", place), timeout=30) as ranks:
    print(json.dumps({
        "gathered": ranks.gather({"rank": ranks.rank}),
        "shared": ranks.share(f"from {ranks.rank}"),
        "sum": ranks.sum([0.1 * (ranks.rank + 1), 1]),
        "device": device_name(find_device("cpu", place)),
        "local": os.environ["LOCAL_RANK"],
    }))
"""


@pytest.mark.parametrize("world", [1, 3])
def test_ranks_talk_to_each_other(world):
    said = [json.loads(out) for out in run_ranks(world, ["-c", TALK])]
    for rank, words in enumerate(said):
        assert words["gathered"] == [{"rank": other} for other in range(world)]
        assert words["shared"] == "from 0"
        assert words["sum"] == said[0]["sum"]
        assert words["sum"] == pytest.approx([sum(0.1 * (rank + 1) for rank in range(world)), world])
        assert words["local"] == str(rank)
        assert words["device"].startswith("CPU ")


def test_ranks_find_each_other_by_slurms_variables():
    job = str(os.getpid())
    env = {**SLURM, "SLURM_JOB_ID": job, "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    tasks = [
        start(["-c", TALK], {**env, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)})
        for rank in range(2)
    ]
    said = [json.loads(out) for out in finish(tasks)]
    assert [words["shared"] for words in said] == ["from 0", "from 0"]


def test_requeue_asks_scontrol_for_this_job(tmp_path, monkeypatch):
    log = tmp_path / "log"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {log}\n[ "$2" != 13 ] || exec ls /no/such/job\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert requeue(Place("slurm", job="4700_3")) == ""
    assert log.read_text() == "requeue 4700_3\n"
    assert requeue(Place("slurm", job="13")).endswith("No such file or directory")
    log.unlink()
    assert "no job" in requeue(Place("plain"))
    assert "no job" in requeue(Place("slurm", job="1; touch x"))
    assert not log.exists()


def test_finding_ones_place_needs_no_torch():
    check = (
        "import sys; from pipeline.processes.place import find_place as f; f(); print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", check], text=True, env=environment()) == "False\n"


def test_as_many_threads_as_asked_for():
    import torch

    before = torch.get_num_threads()
    try:
        find_device("cpu", Place("plain"), threads=3)
        assert torch.get_num_threads() == 3
        find_device("cpu", Place("plain"))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_cores_of_a_process_are_its_tasks_or_its_part_of_the_nodes():
    here = len(os.sched_getaffinity(0))
    assert cores_of_process({}) == here
    assert cores_of_process({"SLURM_CPUS_PER_TASK": "1"}) == 1
    assert cores_of_process({"SLURM_CPUS_PER_TASK": str(10 * here)}) == here  # the kernel gives no more
    assert cores_of_process({"LOCAL_WORLD_SIZE": str(here)}) == 1
    assert cores_of_process({"LOCAL_WORLD_SIZE": "1000"}) == 1
    with pytest.raises(UserError, match="LOCAL_WORLD_SIZE in the environment: 'two'"):
        cores_of_process({"LOCAL_WORLD_SIZE": "two"})
