"""Array jobs of Slurm with a command of ours, in submitit's batch script and by its call of sbatch.

submitit's public methods give a job a pickled function and signal handlers of their own. So this file, and no
other, uses private methods of submitit; they were read in the version that `READ_FROM` names.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from pipeline.errors import WorkFailed
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import nodes, resources
from pipeline.launching.slurm.launches import Launch
from pipeline.processes import scheduler

READ_FROM = "1.5.4"
COMMENT = 200  # letters of a job's comment


class ArrayExecutor(SlurmExecutor):
    def submit_tasks(self, command: str, tasks: int) -> str:
        """The id of the array's job."""
        self.parameters["map_count"] = tasks
        try:
            return str(self._submit_command(command).job_id)
        except (FailedJobError, FailedSubmissionError) as error:
            said = [line for line in str(error).splitlines() if line.startswith("sbatch: ")]
            raise WorkFailed("; ".join(said) or f"sbatch: {scheduler.last_line(str(error))}") from error

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        command = super()._make_submission_command(submission_file_path)
        return ["env", *(f"--unset={name}" for name in scheduler.options_set()), *command]


def batch(
    launch: Launch, runs: Sequence[PlannedRun], code: Path, first: Sequence[str] = ()
) -> tuple[ArrayExecutor, str]:
    """The executor with its options, and the command of a task; `first`: the jobs that are to end before."""
    config = runs[0].config
    options = resources.parameters(config)
    if out := nodes.failing(launch.directory.parents[1]):
        options["exclude"] = ",".join(filter(None, [options.get("exclude"), *sorted(out)]))
    executor = ArrayExecutor(launch.directory)
    executor.update_parameters(
        job_name=launch.directory.name,
        time=None,  # the site's, or among the others
        wckey=None,
        comment=cells(runs),
        dependency=":".join(["afterany", *first]) if first else None,
        array_parallelism=config.cluster.max_parallel or len(runs),
        stderr_to_stdout=True,
        use_srun=False,  # job.py calls it, as often as it takes
        setup=[
            "set -e",  # without its modules or its code, it would run something else
            *(f"module load {name}" for name in config.cluster.modules),
            f"export PYTHON={shlex.quote(sys.executable)}",
            f"cd {shlex.quote(str(code))}",
        ],
        additional_parameters=options,
    )
    return (
        executor,
        f"exec sh {resources.RANK} -m pipeline.launching.slurm.job {shlex.quote(str(launch.directory))}",
    )


def cells(runs: Sequence[PlannedRun]) -> str:
    """What squeue shows as the comment of a job, in letters that no command could take for more."""
    named = ", ".join(dict.fromkeys(label for run in runs for label in run.labels))
    return re.sub(r"[^\w.,:@+=/ -]", "?", named)[:COMMENT] or runs[0].config.model.name
