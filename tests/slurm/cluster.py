"""A real Slurm on this machine: one controller, a few nodes with made-up GPUs, its own ports, keys, folders.

    python -m tests.slurm.cluster up|down|status FOLDER

Nodes are daemons of this machine under other names. Their cores and memory are claims, and their GPUs are
device files like /dev/null: Slurm deals them out as it deals out real ones, and nothing can be computed on
them. `sacct` answers in the cluster of accounting.py; `scontrol` shows ended jobs for a quarter of an hour.
"""

import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.processes import scheduler
from tests.slurm.daemons import SBIN, end, free_ports, missing, processes, program, write_settings

STARTUP = 30.0  # seconds; it takes two
FOLDERS = ("log", "state", "spool", "gpu")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "DEADLINE", "OUT_OF_MEMORY"}


class Cluster:
    def __init__(
        self,
        folder: Path,
        nodes: int = 3,
        gpus: int = 8,
        grace: int = 30,
        user_signal: bool = True,
        max_array: int = 1001,
    ) -> None:
        """`grace`: seconds between a preemption's signal and its end. `user_signal`: whether that signal is
        the one that the job named in --signal; else it is SIGTERM."""
        self.folder = folder.resolve()
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.gpus, self.grace, self.max_array = gpus, grace, max_array
        self.user_signal = user_signal
        self._ports: dict[str, int] = {}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def env(self) -> dict[str, str]:
        """Of those who use the cluster."""
        kept = {name: value for name, value in os.environ.items() if not scheduler.OPTIONS.match(name)}
        return {**kept, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        if reason := missing():
            raise RuntimeError(f"a Slurm cluster cannot be started: {reason}")
        end(self.folder)
        for name in FOLDERS:  # an earlier one's jobs are not ours
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        for index in range(self.gpus):
            os.mknod(self.folder / "gpu" / str(index), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        key = self.folder / "munge.key"
        key.unlink(missing_ok=True)
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        self._ports = dict(zip(["controller", *self.nodes], free_ports(len(self.nodes) + 1), strict=True))
        self._configure()
        try:
            self._start_munged()
            self.start_controller()
            for node in self.nodes:
                self._start_slurmd(node)
            self.wait(lambda: all(self.node_is(node, "IDLE") for node in self.nodes), STARTUP, "idle nodes")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every process of the cluster, those of its jobs too."""
        end(self.folder)
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons.clear()

    def last(self) -> None:
        """Until somebody ends the controller."""
        self._daemons["slurmctld"].wait()

    # Asking

    def run(self, *command: str, **options: Any) -> str:
        """Standard output of a command, which must succeed."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60, **options)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def submit(self, *arguments: str, script: str = "", **options: Any) -> str:
        """Give `script`, or a file among the arguments, to sbatch; the job's id."""
        printed = self.run("sbatch", "--parsable", *arguments, input=script or None, **options)
        return printed.strip().split(";")[0]

    def job(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says."""
        return _fields(self.run("scontrol", "-o", "show", "job", job).splitlines()[0])

    def jobs(self) -> list[dict[str, str]]:
        lines = self.run("scontrol", "-o", "show", "jobs").splitlines()
        return [_fields(line) for line in lines if line.startswith("JobId=")]

    def state(self, job: str) -> str:
        return self.job(job)["JobState"]

    def restarts(self, job: str) -> int:
        return int(self.job(job)["Restarts"])

    def node_is(self, node: str, state: str) -> bool:
        return state in re.split(r"[+*]", _fields(self.run("scontrol", "-o", "show", "node", node))["State"])

    def wait(self, condition: Callable[[], Any], seconds: float, what: str = "") -> Any:
        """The first true value of `condition`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if value := condition():
                    return value
                error = ""
            except RuntimeError as met:  # a controller that is starting answers nobody
                error = str(met)
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:g} s for {what or condition}. {error}\n{self.report()}")
            time.sleep(0.05)  # between two looks

    def wait_for(self, job: str, *states: str, seconds: float = 60.0) -> dict[str, str]:
        """Until the job is in one of these states; without any, until it has ended."""
        wanted = set(states) or ENDED
        self.wait(lambda: self.state(job) in wanted, seconds, f"job {job} to be {' or '.join(wanted)}")
        return self.job(job)

    def report(self) -> str:
        """The whole state, for whoever reads a failed test."""
        said = []
        for command in (["sinfo"], ["squeue"], ["scontrol", "-o", "show", "jobs"]):
            done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)
            said += done.stdout.splitlines()[-5:]
        for path in sorted((self.folder / "log").glob("*.log")):
            lines = [line for line in path.read_text(errors="replace").splitlines() if "debug:" not in line]
            said += [f"== {path.name}", *lines[-15:]]
        return "\n".join(said)

    # Faults

    def kill_node(self, node: str) -> None:
        """As by a power cut: the daemon and all that ran there are gone, and the controller is told."""
        end(self.folder, node)
        self._daemons.pop(node).wait()
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=killed")

    def start_node(self, node: str) -> None:
        self._start_slurmd(node)
        self.wait(lambda: self.node_is(node, "IDLE") or self.node_is(node, "MIXED"), STARTUP, f"{node} up")

    def stop_controller(self) -> None:
        daemon = self._daemons.pop("slurmctld")
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(STARTUP)

    def start_controller(self) -> None:
        self._spawn("slurmctld", "slurmctld", "-D")
        self.wait(lambda: "UP" in self.run("scontrol", "ping"), STARTUP, "slurmctld")

    def restart_controller(self, until: Callable[[], Any] = lambda: True, seconds: float = 60.0) -> None:
        """It comes back once `until` is true."""
        self.stop_controller()
        self.wait(until, seconds)
        self.start_controller()

    def send_user_signal(self, wanted: bool) -> None:
        """Whether preemption sends the job's own signal from now on, or SIGTERM."""
        self.user_signal = wanted
        self._configure()
        self.run("scontrol", "reconfigure")

    def preempts(self, mode: str, grace: int) -> None:
        """How the partition main gives way from now on."""
        self.run("scontrol", "update", "partitionname=main", f"preemptmode={mode}", f"gracetime={grace}")

    def restore(self) -> None:
        """As it was at first: no job, every node, the job's own signal."""
        if "slurmctld" not in self._daemons:
            self.start_controller()
        self.wait(self._cancelled, STARTUP, "all jobs to be gone")
        for node in set(self.nodes) - set(self._daemons):
            self.start_node(node)
        if not self.user_signal:
            self.send_user_signal(True)

    def _cancelled(self) -> bool:
        """Whether no job is left, after one more try. scancel fails where a job ends by itself meanwhile."""
        subprocess.run(["scancel", "--quiet", "--user=root"], env=self.env, timeout=60, capture_output=True)
        end(self.folder, daemons=False)  # without the seconds that Slurm would leave them
        return not self.run("squeue", "--noheader").strip()

    # Daemons

    def _configure(self) -> None:
        write_settings(self.folder, self._ports, self.gpus, self.grace, self.user_signal, self.max_array)

    def _start_munged(self) -> None:
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
        files |= {"seed-file": "munge.seed", "log-file": "log/munged.log"}
        options = [f"--{name}={self.folder / path}" for name, path in files.items()]
        socket = self.folder / "munge.socket"
        socket.unlink(missing_ok=True)
        self._spawn("munged", "munged", "--foreground", "--force", *options)
        self.wait(socket.exists, STARTUP, "munged")

    def _start_slurmd(self, node: str) -> None:
        self._spawn(node, "slurmd", "-D", "-N", node)

    def _spawn(self, name: str, *command: str) -> None:
        """A daemon in a session of its own: Ctrl-C is for us."""
        with open(self.folder / "log" / f"{name}.out", "ab") as out:
            self._daemons[name] = subprocess.Popen(
                [program(command[0]), *command[1:]],
                env={**self.env, "PATH": f"{os.environ.get('PATH', '')}:{SBIN}"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )


def _fields(line: str) -> dict[str, str]:
    return dict(re.findall(r"(?:^|\s)([A-Z][\w:/]*)=(.*?)(?=\s+[A-Z][\w:/]*=|\s*$)", line))


MANUAL = """\
A Slurm cluster is up: {nodes}, partitions main and urgent (preempts main). In another shell:

    export SLURM_CONF={folder}/slurm.conf
    sinfo
    srun -N2 --gpus-per-node=1 bash -c 'echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES'

It ends with Ctrl-C here, or with `make slurm-down`. Logs: {folder}/log
"""


def main(argv: Sequence[str], kind: type[Cluster] = Cluster) -> int:
    if len(argv) != 2 or argv[0] not in ("up", "down", "status"):
        print("usage: python -m tests.slurm.cluster up|down|status FOLDER", file=sys.stderr)
        return 2
    action, cluster = argv[0], kind(Path(argv[1]))
    alive = processes(cluster.folder)
    if action == "down":
        end(cluster.folder)
        print(f"{len(alive)} processes ended" if alive else "no cluster was up")
    elif alive:
        print(f"a cluster is up: export SLURM_CONF={cluster.folder}/slurm.conf", flush=True)
        return subprocess.run(["sinfo"], env=cluster.env).returncode
    elif action == "status":
        print(f"no cluster is up in {cluster.folder}")
        return 1
    else:
        return keep(cluster)
    return 0


def keep(cluster: Cluster) -> int:
    """Up until somebody ends it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with cluster:
            print(MANUAL.format(nodes=", ".join(cluster.nodes), folder=cluster.folder), flush=True)
            cluster.last()
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("the cluster is down")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
