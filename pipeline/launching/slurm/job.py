"""One rank of a run that launch.py has submitted to Slurm.

    srun … python -m pipeline.launching.slurm.job <a launch's directory>

The launch's file names the run of each task of the array, and the run's directory has its config and its
checkpoints. So the command is the same however often the job is started again.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline import train
from pipeline.config import run as configs
from pipeline.config.identity import is_run_id
from pipeline.config.run import RunConfig
from pipeline.errors import UserError, WorkFailed, command
from pipeline.launching import calibration
from pipeline.launching.slurm import launches, queue
from pipeline.processes.place import find_place, requeue
from pipeline.runs import attempts, records
from pipeline.runs.directory import CONFIG, WEIGHTS, run_directory
from tnt.untrusted.reading import whole_number


def main(argv: Sequence[str]) -> int:
    place = find_place()
    array, _, task = place.job.partition("_")
    if len(argv) != 1 or not task:
        raise UserError("this is started by the jobs of launch.py; `pipeline/train.py` starts a run")
    launch = launches.read(Path(argv[0]))
    if launch.settle(array) != array:
        print(f"{launch.directory.name} was given up, or is job {launch.job}: job {array} does nothing")
        return 0
    if launch.starts and place.restarts >= launch.starts:
        print(
            f"{launch.directory.name} was to start {launch.starts} times, which it has; this one does nothing"
        )
        return 0
    id = launch.runs[whole_number(task, 0, len(launch.runs) - 1, "SLURM_ARRAY_TASK_ID")]
    config = configs.read(launch.directory.parents[1] / id / CONFIG)
    if launch.calibration:
        calibration.measure(config, launch.calibration)
        return 0
    return 0 if waits_for_its_origin(config) else train.main((), config)


def waits_for_its_origin(config: RunConfig) -> bool:
    """Whether the run that it starts from is still being trained; then this job is queued again.

    It was submitted to start when that run's job has ended in any way: with a dependency on success it would
    never start after a first attempt that failed. If that run was started again since, this job waits for it.
    """
    origin = config.recipe.init
    if not is_run_id(origin):
        return False
    directory = run_directory(config, origin)
    if records.exists(config.paths.records, origin) or (directory / WEIGHTS).exists():
        return False
    place = find_place()
    if place.rank:
        return True  # rank 0 queues the job again
    runs = directory.parent
    job = queue.jobs(runs, [origin], queue.look(runs).listed).get(origin)
    if not (job and job.live) and not attempts.holder(directory):
        state = f"its job {job.id}: {job.state}" if job else "no job of it is left"
        raise WorkFailed(
            f"this starts from run {origin}, which has not finished and is not being trained ({state}); the "
            "same launch again submits both"
        )
    print(f"this starts from run {origin}, which is still at work; job {place.job} is queued again")
    if refused := requeue(place):
        raise WorkFailed(
            f"Slurm did not queue job {place.job} again ({refused}); the same launch submits the run again"
        )
    return True


if __name__ == "__main__":
    command(main, stopped="stopped; the run continues from its last checkpoint")
