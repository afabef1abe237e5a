"""What the tests of training rely on: this Slurm is a real one, and does to jobs what Slurm does."""

import os
import subprocess
import sys

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.daemons import processes

# A job that says which signal it got, and ends well; started again, it ends at once.
PATIENT = """#!/bin/bash
#SBATCH --nodes=2 --exclusive --requeue --open-mode=append --signal=USR1@30 --time=10
echo "start ${SLURM_RESTART_COUNT:-0}"
[ -n "$SLURM_RESTART_COUNT" ] && exit 0
srun --nodes=1 --ntasks=1 bash -c '
    trap "echo signal USR1" USR1
    trap "echo signal TERM" TERM
    echo ready
    while true; do sleep 0.1; done'
"""


@pytest.fixture
def patient(slurm, tmp_path):
    """A running job: its id and what it says."""
    out = tmp_path / "out.txt"
    out.touch()
    job = slurm.submit("--output", str(out), script=PATIENT)
    slurm.wait(lambda: "ready" in out.read_text(), 30, "the job to be ready")
    return job, out.read_text


def test_tasks_run_on_the_nodes_with_the_gpus_asked_for(slurm, tmp_path):
    script = (
        "#!/bin/bash\n#SBATCH --nodes=2 --ntasks-per-node=2 --gpus-per-node=2\n"
        "srun bash -c 'echo $SLURM_PROCID $SLURM_LOCALID $SLURMD_NODENAME ${CUDA_VISIBLE_DEVICES//[^,]}'\n"
    )
    job = slurm.submit("--output", str(tmp_path / "out.txt"), script=script)
    assert slurm.wait_for(job)["JobState"] == "COMPLETED"
    said = sorted((tmp_path / "out.txt").read_text().split("\n")[:-1])
    assert said == ["0 0 n1 ,", "1 1 n1 ,", "2 0 n2 ,", "3 1 n2 ,"]


def test_a_requeue_keeps_the_id_and_counts(slurm, tmp_path):
    out = tmp_path / "out.txt"
    script = (
        '#!/bin/bash\necho "start $SLURM_RESTART_COUNT"\n[ -n "$SLURM_RESTART_COUNT" ] || srun sleep 1000\n'
    )
    job = slurm.submit("--output", str(out), "--open-mode=append", script=script)
    slurm.wait_for(job, "RUNNING")
    slurm.run("scontrol", "requeue", job)
    assert slurm.wait_for(job, "COMPLETED")["Restarts"] == "1"
    assert out.read_text().endswith("start 1\n")


@pytest.mark.parametrize("number", ["USR1", "TERM"])
def test_preemption_sends_one_signal_and_leaves_time(slurm, patient, number):
    job, said = patient
    slurm.send_user_signal(number == "USR1")
    slurm.submit("--partition=urgent", "--nodes=3", "--exclusive", "--wrap", "true")
    slurm.wait(lambda: "signal USR1" in said() or "signal TERM" in said(), 30, "a signal")
    assert f"signal {number}" in said()
    assert slurm.job(job)["PreemptTime"] != "None"
    assert slurm.state(job) == "RUNNING"


def test_a_job_whose_node_is_lost_starts_again_elsewhere(slurm, tmp_path):
    out = tmp_path / "out.txt"
    out.touch()
    script = "#!/bin/bash\n#SBATCH --requeue --open-mode=append\necho $SLURMD_NODENAME\n"
    script += '[ -n "$SLURM_RESTART_COUNT" ] || srun sleep 1000\n'
    job = slurm.submit("--output", str(out), script=script)
    slurm.wait(lambda: out.read_text(), 30, "the job to start")
    first = out.read_text().strip()
    slurm.kill_node(first)
    assert not processes(slurm.folder, first)
    assert slurm.wait_for(job, "COMPLETED")["Restarts"] == "1"
    assert out.read_text().split()[1] != first


def test_jobs_outlive_a_restart_of_the_controller(slurm, patient):
    job, _ = patient
    slurm.restart_controller()
    assert slurm.state(job) == "RUNNING"
    assert slurm.restarts(job) == 0


def test_nothing_is_left_of_a_cluster_whatever_ended_its_keeper(tmp_path):
    """Started by hand it says how to use it, and twice that it is there; its keeper killed, it is found."""
    command = [sys.executable, "-m", "tests.slurm.cluster"]
    keeper = subprocess.Popen([*command, "up", tmp_path], stdout=subprocess.PIPE, text=True)
    assert "up: n1, n2, n3" in keeper.stdout.readline()
    try:
        again = subprocess.run([*command, "up", tmp_path], capture_output=True, text=True, check=True)
        assert "a cluster is up" in again.stdout
        assert "idle" in again.stdout
        other = Cluster(tmp_path)
        job = other.submit("--wrap", "srun sleep 1000")
        other.wait(lambda: "sleep" in _names(processes(tmp_path)), 30, "the job's process")
        assert other.state(job) == "RUNNING"
    finally:
        keeper.kill()
        keeper.wait()
    before = processes(tmp_path)
    assert {"munged", "slurmctld", "slurmd", "slurmstepd", "sleep"} <= _names(before)
    ended = subprocess.run([*command, "down", tmp_path], capture_output=True, text=True, check=True)
    assert f"{len(before)} processes ended" in ended.stdout
    assert not processes(tmp_path)
    assert subprocess.run([*command, "status", tmp_path], capture_output=True).returncode == 1


def _names(pids: list[int]) -> set[str]:
    """Of those that still run."""
    paths = [f"/proc/{pid}/comm" for pid in pids]
    return {open(path).read().strip() for path in paths if os.path.exists(path)}
