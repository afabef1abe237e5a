"""Slurm's commands, called so that nothing but their arguments decides what they do.

They take options from the environment as well: SBATCH_PARTITION beats a line of the script, SQUEUE_USERS
hides jobs, and inside a job SLURM_JOB_ID names the one that is meant. No command from here sees any of these.
"""

import os
import re
import subprocess

# Those that say which cluster is meant, and who asks, stay.
OPTIONS = re.compile(
    r"(?!SLURM_(CONF|CONF_SERVER|JWT)$)"
    r"(SLURMD?|SBATCH|SALLOC|SRUN|SQUEUE|SACCT|SCANCEL|SCONTROL|SINFO|SUBMITIT|TORCHELASTIC|MASTER)_"
    r"|(RANK|WORLD_SIZE|LOCAL_RANK)$"
)
JOB = re.compile(r"\d+(_\d+)?")  # as its commands name one


def options_set() -> list[str]:
    """The variables that commands do not get to see."""
    return sorted(name for name in os.environ if OPTIONS.match(name))


def environment() -> dict[str, str]:
    """That of this process without them."""
    return {name: value for name, value in os.environ.items() if not OPTIONS.match(name)}


def run(
    *command: str, said: str | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """One try; `said` is its standard input."""
    return subprocess.run(
        command,
        input=said or "",
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=environment(),
        timeout=timeout,
    )


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
