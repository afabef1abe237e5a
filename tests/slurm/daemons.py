"""What a small Slurm is made of: its settings as text, and its processes as found by what they are.

A process belongs to a cluster if it is one of Slurm's daemons and has a log in the cluster's folder open, or
runs in one of its jobs. So nothing needs to be noted down, and what a crash left behind is found as well.
"""

import os
import shutil
import signal
import socket
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
# Below the range of outgoing connections, and not those on which the ranks of a run meet.
PORTS = range(12000, 20000)

# Everything is quick: a node is missed after 10 s, a requeued job waits 5 s, a killed one has 3 s to go.
# Cores, memory and GPUs are made up (config_overrides), so that real scripts are accepted as they are.
SETTINGS = """\
ClusterName=tnt
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldDebug=debug
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmctldTimeout=30
{parameters}
StateSaveLocation={folder}/state
SlurmUser=root
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/log/%n.log
SlurmdSpoolDir={folder}/spool/%n
SlurmdParameters=config_overrides
SlurmdTimeout=10
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
PropagateResourceLimits=NONE
ReturnToService=2
KillWait=3
MinJobAge=900
MaxArraySize={max_array}
JobRequeue=1
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/ended.txt
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=DEFAULT CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace} State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF State=UP
"""


def missing() -> str:
    """Why no cluster can be started here; empty where it can."""
    absent = [name for name in PROGRAMS if not program(name)]
    if absent:
        return f"no {', '.join(absent)} here (Debian: apt install slurmctld slurmd slurm-client munge)"
    if os.geteuid() != 0:
        return "slurmd and mknod need root"
    return ""


def program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}") or ""


def write_settings(
    folder: Path, ports: dict[str, int], gpus: int, grace: int, user_signal: bool, max_array: int
) -> None:
    """slurm.conf and gres.conf; `ports` of "controller" and of each node, by its name."""
    host = socket.gethostname().split(".")[0]
    nodes = [name for name in ports if name != "controller"]
    lines = [f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[name]}\n" for name in nodes]
    text = SETTINGS.format(
        folder=folder,
        host=host,
        port=ports["controller"],
        parameters="SlurmctldParameters=preempt_send_user_signal" if user_signal else "",
        max_array=max_array,
        cpus=64,
        memory=512_000,
        gpus=gpus,
        grace=grace,
    )
    head, partitions = text[: text.index("PartitionName")], text[text.index("PartitionName") :]
    (folder / "slurm.conf").write_text(head + "".join(lines) + partitions)
    (folder / "gres.conf").write_text(
        f"NodeName={','.join(nodes)} Name=gpu File={folder}/gpu/[0-{gpus - 1}]\n"
    )


def free_ports(count: int) -> list[int]:
    found: list[int] = []
    start = os.getpid() % len(PORTS)  # several clusters at once rarely ask for the same
    for port in [*PORTS[start:], *PORTS[:start]]:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError(f"no {count} free ports between {PORTS[0]} and {PORTS[-1]}")


def processes(folder: Path, node: str = "", daemons: bool = True) -> list[int]:
    """Those of the cluster in a folder, or of one of its nodes: daemons, and what runs in jobs."""
    logs = (
        {str(folder / "log" / f"{node}.log")} if node else {str(path) for path in (folder / "log").glob("*")}
    )
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        try:
            name = (path / "comm").read_text().strip()
            if name in ("munged", "mariadbd") or name.startswith("slurm"):
                ours = daemons and any(os.readlink(file) in logs for file in (path / "fd").iterdir())
            else:
                ours = _in_job(environment(pid), folder, node)
        except OSError:  # gone meanwhile
            continue
        if ours and pid != os.getpid():
            found.append(pid)
    return found


def environment(pid: int) -> dict[str, str]:
    """With which a process was started."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _in_job(values: dict[str, str], folder: Path, node: str) -> bool:
    ours = values.get("SLURM_CONF") == str(folder / "slurm.conf")
    return ours and "SLURM_JOB_ID" in values and (not node or values.get("SLURMD_NODENAME") == node)


def end(folder: Path, node: str = "", daemons: bool = True, seconds: float = 20.0) -> None:
    """Kill them all, and see none in several looks: what is just starting cannot be told for a moment."""
    deadline = time.monotonic() + seconds
    empty_looks = 0
    while empty_looks < 5:
        left = [pid for pid in processes(folder, node, daemons) if not _is_zombie(pid)]
        empty_looks = 0 if left else empty_looks + 1
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} of the cluster in {folder} do not go")
        time.sleep(0.05)  # between two looks


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
