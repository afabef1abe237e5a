"""What Slurm's accounting says of jobs, where a site has it: their states, and what they used."""

import math
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pipeline.processes import scheduler
from tnt.untrusted.reading import number

COLUMNS = "JobID,State,Reason,Cluster,JobName,ElapsedRaw,TimelimitRaw,AllocTRES,MaxRSS,ConsumedEnergyRaw"
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
MOST = 1e15  # joules: Slurm says more where a node's counter is none


@dataclass(frozen=True)
class AccountedJob:
    """All starts of a job together."""

    state: str  # Slurm's word in small letters
    reason: str
    cluster: str
    name: str
    seconds: int
    limit: int  # seconds at a stretch; 0: none
    gpus: int
    memory: int  # bytes that the largest task held
    allowed: int  # bytes of all of its nodes
    joules: float  # 0 where nothing measures them

    @property
    def gpu_hours(self) -> float:
        return self.gpus * self.seconds / 3600


def ask(ids: Iterable[str], timeout: float) -> dict[str, AccountedJob]:
    """By id; nothing of jobs that are not known there, or where nobody answers."""
    wanted = sorted(filter(scheduler.JOB.fullmatch, ids))
    if not wanted:
        return {}
    words = ("--duplicates", "--noheader", "--parsable2", f"--format={COLUMNS}", f"--jobs={','.join(wanted)}")
    try:
        done = scheduler.run("sacct", *words, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return read(done.stdout) if not done.returncode else {}


def read(text: str) -> dict[str, AccountedJob]:
    """Of lines of sacct: of a job, each of its starts, and below each its steps."""
    found: dict[str, AccountedJob] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        values = dict(zip(COLUMNS.split(","), parts, strict=False))
        if len(values) < len(COLUMNS.split(",")) or not values["State"]:
            continue  # no line of ours
        id, _, step = values["JobID"].partition(".")
        tres = dict(part.partition("=")[::2] for part in values["AllocTRES"].split(",") if part)
        before = found.get(id)
        memory, joules = int(_number(values["MaxRSS"])), _number(values["ConsumedEnergyRaw"])
        joules = joules if joules < MOST else 0.0
        if step and before:
            found[id] = replace(before, memory=max(before.memory, memory), joules=max(before.joules, joules))
        elif not step:
            found[id] = AccountedJob(
                values["State"].split()[0].lower(),  # of "CANCELLED by 1000"
                "" if values["Reason"] == "None" else values["Reason"],
                values["Cluster"],
                values["JobName"],
                int(_number(values["ElapsedRaw"])) + (before.seconds if before else 0),
                60 * int(_number(values["TimelimitRaw"])),
                max(int(_number(tres.get("gres/gpu", ""))), before.gpus if before else 0),
                max(memory, before.memory if before else 0),
                int(_number(tres.get("mem", ""))),
                joules + (before.joules if before else 0.0),
            )
    return found


def _number(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    return number(match[1], 0, math.inf) * UNITS[match[2]] if match else 0.0
