"""Jobs of the batch files in slurm/: of which run each is, before it has begun and says so itself."""

import re
from pathlib import Path

from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.launching.plan import RequestedRun, planned
from pipeline.launching.slurm.commands import Job
from tnt.untrusted.reading import read_text

COMMAND = re.compile(r"(/.*/slurm/[a-z_]+\.sh)( .*|)")
WORDS = re.compile(r'^ *sh \S+/rank\.sh pipeline/train\.py (.*)"\$@"$', re.M)  # which each file trains with


def run_of(job: Job, runs: Path) -> str:
    """The id of the run in this directory of runs that the job is to train; "" where it is none."""
    command = COMMAND.fullmatch(job.command)
    try:
        words = WORDS.search(read_text(Path(command[1]))) if command else None
        if not command or not words:
            return ""
        config = compose([*words[1].split(), *command[2].split()])
    except (OSError, UserError):  # another repository's, or of words that its start will refuse
        return ""
    [run] = planned([RequestedRun(config)])
    return run.id if Path(config.paths.runs).absolute() == runs.absolute() else ""
