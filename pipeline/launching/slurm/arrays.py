"""Array jobs of Slurm with a command of ours, in submitit's batch script and by its call of sbatch.

submitit's public methods give a job a pickled function and signal handlers of their own. So this file, and no
other, uses private methods of submitit; they were read in the version that `READ_FROM` names.
"""

from pathlib import Path

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from pipeline.errors import WorkFailed
from pipeline.processes import scheduler

READ_FROM = "1.5.4"


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
