"""Which process of a run this is, and how it talks to the others.

The same command starts a run under `srun` (also through submitit), under `torchrun`, and by itself:
`find_place` reads what each leaves in the environment. Nothing is probed through MPI or a hostfile.
"""

import os
import re
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.processes import scheduler
from tnt.untrusted.reading import MOST_OPTION, whole_number

# Below the range from which the kernel deals out ports of outgoing connections (32768 on Linux).
PORTS = range(20000, 32000)
SUPERVISED = "TNT_SUPERVISED"  # how many runs of its job a process watches: it has the job queued again


@dataclass(frozen=True)
class Place:
    launcher: str  # plain, torchrun or slurm
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    master: str = "127.0.0.1"
    port: int = 0  # 0: nobody else to be met
    job: str = ""  # the scheduler's name for the job, as its commands take it
    job_name: str = ""
    cluster: str = ""  # whose job it is
    restarts: int = 0  # how often the scheduler has started this job again
    sharing: int = 1  # runs of this job
    supervised: bool = False  # by a process that has the job queued again where that is wanted

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise UserError(f"rank {self.rank} of {self.world} processes ({self.launcher}): no such place")


def find_place(environ: Mapping[str, str] | None = None) -> Place:
    env = os.environ if environ is None else environ
    # torchrun inside srun sets both: the inner launcher decides.
    if "RANK" in env or "WORLD_SIZE" in env:
        return _torchrun(env)
    # A batch script has SLURM_PROCID too, but no step: a python there is not one of several tasks.
    if "SLURM_PROCID" in env and "SLURM_STEP_ID" in env:
        return _slurm(env)
    return Place("plain", **_job(env))


def _torchrun(env: Mapping[str, str]) -> Place:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in names if name not in env]:
        there = ", ".join(name for name in names if name in env)
        raise UserError(
            f"{there} set, but not {', '.join(missing)}: start the run with torchrun or srun, or unset them"
        )
    rank, world, local_rank = (_number(env, name) for name in names[:3])
    return Place(
        "torchrun", rank, world, local_rank, env["MASTER_ADDR"], _number(env, "MASTER_PORT"), **_job(env)
    )


def _slurm(env: Mapping[str, str]) -> Place:
    world = _number(env, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS")
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or ""
    restarts = env.get("SLURM_RESTART_COUNT", "0")
    # The same port on every rank, another for every job and every attempt at it.
    start = zlib.crc32(f"{env['SLURM_JOB_ID']}.{env['SLURM_STEP_ID']}.{restarts}".encode())
    return Place(
        "slurm",
        _number(env, "SLURM_PROCID"),
        world,
        _number(env, "SLURM_LOCALID"),
        env.get("MASTER_ADDR") or _reachable(first_node(nodes), env.get("SLURM_LAUNCH_NODE_IPADDR", "")),
        _number(env, "MASTER_PORT", "0") or PORTS[start % len(PORTS)],
        **_job(env),
    )


def _job(env: Mapping[str, str]) -> dict[str, Any]:
    job = env.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in env:
        job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    if not job:
        return {}
    return {
        "job": job,
        "job_name": env.get("SLURM_JOB_NAME", ""),
        "cluster": env.get("SLURM_CLUSTER_NAME", ""),
        "restarts": _number(env, "SLURM_RESTART_COUNT", "0"),
        "sharing": _number(env, SUPERVISED, "1"),
        "supervised": SUPERVISED in env,
    }


def cores_of_process(environ: Mapping[str, str] | None = None) -> int:
    """What Slurm gave this task, or all that may be used here; of it this process's part under torchrun."""
    env = os.environ if environ is None else environ
    here = len(os.sched_getaffinity(0))
    given = _number(env, "SLURM_CPUS_PER_TASK") if "SLURM_CPUS_PER_TASK" in env else here
    beside = _number(env, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in env else 1
    return max(1, min(here, given) // max(1, beside))


def _number(env: Mapping[str, str], name: str, without: str = "") -> int:
    return whole_number(env.get(name, without), 0, MOST_OPTION, f"{name} in the environment")


def first_node(nodes: str) -> str:
    """The first host of Slurm's short form: gpu[07-09,12],login2 → gpu07"""
    match = re.match(r"([^,\[]*)(?:\[(\w+)[^]]*\])?([^,\[]*)", nodes)
    assert match is not None
    return match[1] + (match[2] or "") + match[3]


def _reachable(name: str, address: str) -> str:
    """A node's name where it can be resolved; some sites have names that only Slurm knows."""
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return address or name
    return name


def requeue(place: Place) -> str:
    """Ask Slurm to start this job again; "" where it will, else why it will not."""
    if place.supervised:
        return ""
    if not scheduler.JOB.fullmatch(place.job):
        return f"{place.job!r} is no job of Slurm"
    try:
        done = scheduler.run("scontrol", "requeue", place.job)
    except OSError as error:
        return f"scontrol: {error.strerror}"
    return "" if done.returncode == 0 else scheduler.last_line(done.stderr) or f"status {done.returncode}"


def preempted(place: Place, ended: bool = False) -> bool:
    """Whether Slurm wants this job's nodes for another one. It starts the job again by itself only if that is
    still there when its time of grace is over: one that ends before counts as completed. `ended`: it is over.
    """
    if not scheduler.JOB.fullmatch(place.job):
        return False
    try:
        said = scheduler.run("scontrol", "--oneliner", "show", "job", place.job).stdout
    except OSError:  # this node has none
        return False
    # SIGNALING: while the signal is on its way. A cancelled job is COMPLETING or CANCELLED by then.
    states = "COMPLETING|PREEMPTED" if ended else "RUNNING|SIGNALING"
    return bool(re.search(rf" JobState=({states}) .* PreemptTime=\d", said))
