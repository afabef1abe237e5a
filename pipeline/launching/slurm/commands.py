"""Slurm's own commands: list jobs, cancel and signal them; without torch.

A controller that is restarting or busy is asked again for a while. Accounting (`sacct`) is used where a site
has it, but not needed: the files of a run also show how it ended.
"""

import functools
import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import WorkFailed
from pipeline.processes import scheduler
from pipeline.processes.accounting import AccountedJob
from pipeline.processes.scheduler import last_line

ENDED = (
    "completed",
    "failed",
    "cancelled",
    "timeout",
    "node_fail",
    "out_of_memory",
    "preempted",
    "boot_fail",
    "deadline",
    "revoked",
)
WAITING = ("pending", "requeued", "requeue_hold", "special_exit")
PATIENCE = 30.0  # seconds for a controller that does not answer
PAUSE = 1.0  # between two questions to it
AT_ONCE = 200  # jobs named in one command
# Errors after which another try may succeed.
PASSING = re.compile(r"unable to contact|socket timed out|connection refused|communication|try again", re.I)
NO_CLUSTER = "could not establish a configuration source"  # Slurm is installed here, and set up for nothing
# Reasons for which a job waits for somebody, not for a node.
CURES = {
    "held": "`scontrol release {id}` lets it start",
    "maxwall": "it waits for ever; cancel it, and launch with a shorter cluster.time",
    "partitiontimelimit": "it waits for ever; cancel it, and launch with a shorter cluster.time",
    "dependencyneversatisfied": "it waits for ever; cancel it, and launch again",
}
ELSEWHERE = "go to a login node, or use cluster=local"
FIELD = re.compile(r"(?:^|\s)([A-Z][\w:/]*)=(.*?)(?=\s+[A-Z][\w:/]*=|\s*$)")  # of scontrol --oneliner
# The command may hold any character, so it comes last.
COLUMNS = ("JobArrayID", "State", "EndTime", "StartTime", "Cluster", "Name", "Reason", "Command")


@dataclass(frozen=True)
class Job:
    id: str  # as 17, or 17_3 in an array
    state: str  # Slurm's word in small letters: pending, running, completed, failed, timeout, …
    reason: str = ""  # why it is pending, or what ended it
    name: str = ""
    cluster: str = ""
    command: str = ""
    used: tuple[AccountedJob, ...] = ()  # by the accounting: it, and other jobs of its run
    starts: str = ""  # when Slurm expects that it will, as 2026-01-31T23:59:59
    ending: bool = False  # its processes have been told to go, and it will not start again

    @property
    def live(self) -> bool:
        return self.state not in ENDED

    @property
    def waiting(self) -> bool:
        return self.state in WAITING

    def __str__(self) -> str:
        more = "ending" if self.ending else self.reason
        cure = next((cure for words, cure in CURES.items() if words in more.lower()), "")
        more += f": {cure.format(id=self.id)}" if cure else ""
        more += f", expected to start {self.starts}" if self.starts else ""
        return f"job {self.id}{f' ({more})' if more else ''}"


class NoCluster(WorkFailed):
    """Slurm's commands may be installed where no cluster is set up."""


def listing() -> str:
    """A line for each job of this user that Slurm remembers, which `jobs` reads.

    Asked by user, a busy controller has to look at few jobs; asked by name or by ids, it sends all of them.
    """
    form = ",".join(f"{column}:|" for column in COLUMNS)
    which = ("--noheader", "--array", "--all", "--states=all", f"--user={os.getuid()}")
    return ask("squeue", *which, f"--Format={form}")


def jobs(lines: str | None = None) -> dict[str, Job]:
    """The jobs of a listing, or of one that is asked for now, by id."""
    found = {}
    for line in (listing() if lines is None else lines).splitlines():
        values = line.rstrip("|").split("|", len(COLUMNS) - 1)
        if len(values) == len(COLUMNS):
            id, state, end, start, cluster, name, reason, command = map(str.strip, values)
            word = state.split()[0].lower()
            # One that is to be requeued is COMPLETING too, but has no end.
            ending = word == "completing" and end not in ("NONE", "N/A", "Unknown")
            reason = "" if reason == "None" else reason
            starts = start if word in WAITING and start[:1].isdigit() else ""
            found[id] = Job(id, word, reason, name, cluster, command, starts=starts, ending=ending)
    return found


def cancel(ids: Sequence[str]) -> None:
    """End jobs; running ones get SIGTERM first, so that their runs write a checkpoint."""
    for start in range(0, len(ids), AT_ONCE):
        ask("scancel", *map(_checked, ids[start : start + AT_ONCE]))


def signal(id: str, name: str) -> None:
    """Send a signal to the ranks of a job, as Slurm does before it takes the nodes away."""
    ask("scancel", f"--signal={name}", _checked(id))


def hosts() -> tuple[str, list[str]]:
    """Where this job's batch script is, and the nodes that it has now: one that is lost is none of them."""
    said = ask("squeue", "--noheader", "--format=%B %N", f"--jobs={os.environ['SLURM_JOB_ID']}").split()
    return (said[0], ask("scontrol", "show", "hostnames", said[1]).split()) if len(said) == 2 else ("", [])


@functools.cache
def site() -> tuple[dict[str, str], list[dict[str, str]]]:
    """The cluster's settings, and its partitions."""
    said = ask("scontrol", "--oneliner", "--all", said="show config\nshow partition\n")
    pairs = (line.partition("=") for line in said.splitlines())
    settings = {name.strip(): value.strip() for name, equals, value in pairs if equals}
    if "ClusterName" not in settings:  # it ends well, whatever the controller said
        raise WorkFailed(f"scontrol: {last_line(said) or 'no answer'}; ask again later")
    return settings, [dict(FIELD.findall(line)) for line in said.splitlines() if "PartitionName=" in line]


def ask(*command: str, said: str | None = None, complaints: bool = False) -> str:
    """Standard output of one of Slurm's commands; with `complaints` its standard error."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            done = scheduler.run(*command, said=said, timeout=PATIENCE)
        except FileNotFoundError:
            raise NoCluster(f"there is no {command[0]} here; {ELSEWHERE}") from None
        except subprocess.TimeoutExpired:
            complaint, passing = f"no answer within {PATIENCE:g} s", True
        else:
            if done.returncode == 0:
                return done.stderr if complaints else done.stdout
            complaint = last_line(done.stderr) or last_line(done.stdout) or f"status {done.returncode}"
            if NO_CLUSTER in complaint.lower():
                raise NoCluster(f"no cluster is set up here ({complaint}); {ELSEWHERE}")
            passing = PASSING.search(done.stderr) is not None
        if not passing or time.monotonic() > deadline:
            advice = "; jobs go on meanwhile, ask again later" if passing else ""
            raise WorkFailed(f"{command[0]}: {complaint}{advice}")
        time.sleep(PAUSE)


def _checked(id: str) -> str:
    if not scheduler.JOB.fullmatch(id):
        raise WorkFailed(f"{id!r} is no job id of Slurm")
    return id
