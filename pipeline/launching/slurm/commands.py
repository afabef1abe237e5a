"""Slurm's own commands: list jobs, cancel and signal them; without torch.

A controller that is restarting or busy is asked again for a while. Accounting (`sacct`) is used where a site
has it, but not needed: the files of a run also show how it ended.
"""

import functools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.errors import WorkFailed

LIVE = ("pending", "configuring", "running", "completing", "suspended", "stopped", "signaling", "resizing")
PATIENCE = 30.0  # seconds for a controller that does not answer
PAUSE = 1.0  # between two questions to it
AT_ONCE = 200  # jobs named in one command
# Errors after which another try may succeed.
PASSING = re.compile(r"unable to contact|socket timed out|connection refused|communication|try again", re.I)
# Variables of a surrounding job or of torchrun, which must not reach another job.
FOREIGN = re.compile(
    r"(?!SLURM_CONF$)((SLURMD?|SRUN|SUBMITIT|TORCHELASTIC|MASTER)_|(RANK|WORLD_SIZE|LOCAL_RANK)$)"
)
JOB = re.compile(r"\d+(_\d+)?")


@dataclass(frozen=True)
class Job:
    id: str  # as 17, or 17_3 in an array
    state: str  # Slurm's word in small letters: pending, running, completed, failed, timeout, …
    reason: str = ""  # why it is pending, or what ended it

    @property
    def live(self) -> bool:
        return self.state in LIVE


@functools.cache
def available() -> bool:
    """Whether this machine belongs to a cluster; Slurm's commands may be installed where none is set up."""
    if not shutil.which("sbatch"):
        return False
    try:  # it names the controllers, whether or not they answer
        return "slurmctld" in run("scontrol", "ping").stdout.lower()
    except (OSError, subprocess.TimeoutExpired):
        return True


def jobs(ids: Iterable[str]) -> dict[str, Job]:
    """The jobs that Slurm still knows, by id."""
    wanted = {_checked(id) for id in ids}
    arrays = sorted({id.partition("_")[0] for id in wanted}, key=int)
    found: dict[str, Job] = {}
    for start in range(0, len(arrays), AT_ONCE):
        found |= _listed("--jobs", ",".join(arrays[start : start + AT_ONCE]))
    if missed := sorted(wanted - found.keys()):
        found |= _accounted(missed)
    return {id: job for id, job in found.items() if id in wanted}


def named(name: str) -> list[str]:
    """The ids of the jobs of this name that Slurm has not forgotten."""
    return list(_listed("--name", name))


def cancel(ids: Sequence[str]) -> None:
    """End jobs; running ones get SIGTERM first, so that their runs write a checkpoint."""
    for start in range(0, len(ids), AT_ONCE):
        ask("scancel", *map(_checked, ids[start : start + AT_ONCE]))


def signal(id: str, name: str) -> None:
    """Send a signal to the ranks of a job, as Slurm does before it takes the nodes away."""
    ask("scancel", f"--signal={name}", _checked(id))


def settings() -> dict[str, str]:
    """The cluster's configuration."""
    pairs = (line.partition("=") for line in ask("scontrol", "show", "config").splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def fields(line: str) -> dict[str, str]:
    """A line of `scontrol --oneliner show …`."""
    return dict(re.findall(r"(?:^|\s)([A-Z][\w:/]*)=(.*?)(?=\s+[A-Z][\w:/]*=|\s*$)", line))


def ask(*command: str) -> str:
    """Standard output of one of Slurm's commands."""
    deadline = time.monotonic() + PATIENCE
    while True:
        passing = False
        try:
            done = run(*command)
        except FileNotFoundError:
            raise WorkFailed(f"there is no {command[0]} here; run this where Slurm's commands are") from None
        except subprocess.TimeoutExpired:
            complaint = f"no answer within {PATIENCE:g} s"
        else:
            if done.returncode == 0:
                return done.stdout
            complaint = last_line(done.stderr) or last_line(done.stdout) or f"status {done.returncode}"
            passing = PASSING.search(done.stderr) is not None
        if not passing or time.monotonic() > deadline:
            advice = "; jobs go on meanwhile, ask again later" if passing else ""
            raise WorkFailed(f"{command[0]}: {complaint}{advice}")
        time.sleep(PAUSE)


def run(*command: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """One try. Inside of a job, the command is not told of it: else it would act on that job."""
    env = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, timeout=timeout
    )


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _listed(*which: str) -> dict[str, Job]:
    try:
        return _read(
            ask("squeue", "--noheader", "--array", "--all", "--states=all", "--format=%i|%T|%r", *which)
        )
    except WorkFailed as error:
        if "invalid job id" in str(error).lower():  # said where all of one job's tasks are forgotten
            return {}
        raise


def _accounted(ids: Sequence[str]) -> dict[str, Job]:
    """Jobs that ended earlier, where the site has accounting; else none."""
    columns = "--format=JobID,State,Reason"
    try:
        done = run("sacct", "-X", "--noheader", "--parsable2", columns, "--jobs", ",".join(ids))
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {} if done.returncode else _read(done.stdout)


def _read(lines: str) -> dict[str, Job]:
    found = {}
    for line in lines.splitlines():
        id, state, reason = (part.strip() for part in line.split("|", 2))
        word = state.split()[0].lower()  # of "CANCELLED by 1000"
        found[id] = Job(id, word, "" if reason == "None" else reason)
    return found


def _checked(id: str) -> str:
    if not JOB.fullmatch(id):
        raise WorkFailed(f"{id!r} is no job id of Slurm")
    return id
