"""Which process of a run this is, and how it talks to the others.

The same command starts a run under `srun` (also through submitit), under `torchrun`, and by itself:
`find_place` reads what each leaves in the environment. Nothing is probed through MPI or a hostfile.
"""

import os
import platform
import re
import shutil
import socket
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.errors import UserError, WorkFailed

if TYPE_CHECKING:
    import torch

# Below the range from which the kernel deals out ports of outgoing connections (32768 on Linux).
PORTS = range(20000, 32000)
JOB = r"\d+(_\d+)?"
T = TypeVar("T")
LAUNCHERS = ("plain", "torchrun", "slurm", "submitit")


@dataclass(frozen=True)
class Place:
    launcher: str  # one of LAUNCHERS
    rank: int = 0
    world: int = 1
    local_rank: int = 0
    master: str = "127.0.0.1"
    port: int = 0  # 0: nobody else to be met
    job: str = ""  # the scheduler's name for the job, as its commands take it
    restarts: int = 0  # how often the scheduler has started this job again

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise UserError(f"rank {self.rank} of {self.world} processes ({self.launcher}): no such place")


def find_place(environ: Mapping[str, str] | None = None) -> Place:
    env = os.environ if environ is None else environ
    # torchrun inside srun sets both: the inner launcher decides.
    if "RANK" in env or "WORLD_SIZE" in env:
        return _torchrun(env)
    if "SUBMITIT_LOCAL_GLOBALID" in env:
        return _submitit_local(env)
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


def _submitit_local(env: Mapping[str, str]) -> Place:
    job = env["SUBMITIT_LOCAL_JOB_ID"]
    return Place(
        "submitit",
        _number(env, "SUBMITIT_LOCAL_GLOBALID"),
        _number(env, "SUBMITIT_LOCAL_NTASKS"),
        _number(env, "SUBMITIT_LOCAL_LOCALID"),
        port=_port(job),
    )


def _slurm(env: Mapping[str, str]) -> Place:
    world = _number(env, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS")
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or ""
    restarts = env.get("SLURM_RESTART_COUNT", "0")
    return Place(
        "submitit" if "SUBMITIT_EXECUTOR" in env else "slurm",
        _number(env, "SLURM_PROCID"),
        world,
        _number(env, "SLURM_LOCALID"),
        env.get("MASTER_ADDR") or _reachable(first_node(nodes), env.get("SLURM_LAUNCH_NODE_IPADDR", "")),
        int(env.get("MASTER_PORT", "0")) or _port(f"{env['SLURM_JOB_ID']}.{env['SLURM_STEP_ID']}.{restarts}"),
        **_job(env),
    )


def _job(env: Mapping[str, str]) -> dict[str, Any]:
    job = env.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in env:
        job = f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
    return {"job": job, "restarts": int(env.get("SLURM_RESTART_COUNT", "0")) if job else 0}


def _number(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env[name])
    except (KeyError, ValueError):
        raise UserError(
            f"{name} is {env.get(name)!r} in the environment; it must be a whole number"
        ) from None


def _port(name: str) -> int:
    """The same on every rank, another for every job and every attempt at it."""
    return PORTS[zlib.crc32(name.encode()) % len(PORTS)]


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


class Ranks:
    """Small exchanges between the processes of a run, over the CPU network; every rank calls them alike."""

    def __init__(self, place: Place, timeout: timedelta) -> None:
        self.place, self.rank, self.world = place, place.rank, place.world
        # NCCL moves only what is on a GPU; what is said here is not.
        self._group: Any = _control_group(timeout) if self.world > 1 else None

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._group)
        return values

    def share(self, value: Any) -> Any:
        """Rank 0's value."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def lead(self, work: Callable[[], T]) -> T:
        """Done by rank 0 alone; its result, or the user's error that it met, is every rank's."""
        error, result = None, None
        if self.rank == 0:
            try:
                result = work()
            except UserError as met:
                error = met
            except OSError as met:
                error = WorkFailed(f"{met.strerror or met}: {met.filename}")
        error, result = self.share((error, result))
        if error is not None:
            raise error
        return result

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the ranks in float64, the same on each of them to the bit."""
        if self.world == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self._group)
        return total.tolist()


def _control_group(timeout: timedelta) -> Any:
    import torch.distributed as dist

    return dist.new_group(backend="gloo", timeout=timeout)


@contextmanager
def joined(place: Place, device: "torch.device", timeout: float) -> Iterator[Ranks]:
    """The process group of a run; a collective that takes longer than `timeout` seconds is an error."""
    import torch
    import torch.distributed as dist

    limit = timedelta(seconds=timeout)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    # DeepSpeed asks for these, whoever made the group.
    os.environ.update(
        RANK=str(place.rank),
        WORLD_SIZE=str(place.world),
        LOCAL_RANK=str(place.local_rank),
        MASTER_ADDR=place.master,
        MASTER_PORT=str(place.port),
    )
    if place.world == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=limit)
    else:
        dist.init_process_group(
            backend, init_method="env://", rank=place.rank, world_size=place.world, timeout=limit
        )
    try:
        yield Ranks(place, limit)
    finally:
        dist.destroy_process_group()


def find_device(name: str, place: Place, threads: int = 0) -> "torch.device":
    """`name` is auto, cpu or cuda; with several GPUs in sight each local rank takes its own.

    `threads`: of this process's arithmetic on the CPU; 0 leaves it to torch.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device is {name!r}; it must be auto, cpu or cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError("device is cuda, but torch sees no GPU here; device=auto takes what there is")
    # Where the scheduler shows each task only its own GPU, that one has index 0.
    return torch.device("cuda", place.local_rank % torch.cuda.device_count())


def device_name(device: "torch.device") -> str:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"CPU {_processor()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    return named[1] if named else platform.machine()


def requeue(place: Place) -> bool:
    """Ask Slurm to start this job again; False where there is no job, or Slurm will not."""
    scontrol = shutil.which("scontrol")
    if not scontrol or not re.fullmatch(JOB, place.job):
        return False
    return subprocess.run([scontrol, "requeue", place.job], stdin=subprocess.DEVNULL).returncode == 0


def preempted(place: Place) -> bool:
    """Whether Slurm wants this job's nodes for another one. It starts the job again by itself only if that is
    still there when its time of grace is over: one that ends before counts as completed."""
    scontrol = shutil.which("scontrol")
    if not scontrol or not re.fullmatch(JOB, place.job):
        return False
    asked = [scontrol, "--oneliner", "show", "job", place.job]
    said = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    # SIGNALING: while the signal is on its way. A cancelled job is COMPLETING or CANCELLED by then.
    return bool(re.search(r" JobState=(RUNNING|SIGNALING) .* PreemptTime=\d", said))
