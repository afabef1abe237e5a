"""A job that launch.py has submitted to Slurm: what its batch script starts, once, on the first node.

    sh pipeline/launching/slurm/rank.sh -m pipeline.launching.slurm.job <a launch's directory>

The launch's file names the runs of each task of the array, and a run's directory has its config and its
checkpoints. So the command is the same however often the job is started again.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.config import run as configs
from pipeline.config.identity import is_run_id
from pipeline.config.run import RunConfig
from pipeline.errors import UserError, WorkFailed, command
from pipeline.launching import local
from pipeline.launching.plan import PlannedRun
from pipeline.launching.slurm import launches, notices, queue, resources
from pipeline.launching.slurm.launches import Launch
from pipeline.launching.slurm.supervision import Asked, RankStep, asked_to_end, ranks, supervise, watched
from pipeline.processes.place import SUPERVISED, Place, find_place, requeue
from pipeline.runs import attempts, records
from pipeline.runs.directory import CONFIG, WEIGHTS, run_directory
from tnt.untrusted.reading import MOST_OPTION, whole_number

# By which a process knows its job.
OF_JOB = ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOB_NAME", "CLUSTER_NAME", "RESTART_COUNT")
MPS = "nvidia-cuda-mps-control"  # lets processes compute on a GPU at the same time


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
    status, ids = 1, launch.runs_of(whole_number(task, 0, MOST_OPTION, "SLURM_ARRAY_TASK_ID"))
    try:
        with asked_to_end(place) as asked:
            status = start(launch, ids, place, asked)
    finally:
        notices.tell(launch, ids, status if not asked.by else notices.BY_SIGNAL)
    return status


def start(launch: Launch, ids: Sequence[str], place: Place, asked: Asked) -> int:
    configured = {id: launch.directory.parents[1] / id / CONFIG for id in ids}
    runs = [PlannedRun(configs.read(path), id) for id, path in configured.items()]
    if any(waits_for_its_origin(run.config, place) for run in runs):
        return 0
    if runs[0].config.cluster.pack > 1:
        return side_by_side(runs, place, asked)
    [run] = runs
    program = [str(local.PROGRAM)]
    if launch.calibration:
        program = ["-m", "pipeline.launching.calibration", str(launch.calibration)]
    words = [*program, "--config", str(configured[run.id])]
    output = f"{launch.directory}/{place.job}_%t_log.out"
    if launch.calibration:
        return ranks(run, words, output).process.wait()
    return watched(run, words, asked, place, output)


def side_by_side(runs: Sequence[PlannedRun], place: Place, asked: Asked) -> int:
    """Several runs, each by processes of this node, on all GPUs of the job and on as many cores."""
    config = runs[0].config
    needed = resources.allocation(config)
    with shared_gpus(resources.on_gpus(config)) as variables:
        names = (f"SLURM_{name}" for name in OF_JOB)
        job = {name: os.environ[name] for name in names if name in os.environ}
        variables |= job | {SUPERVISED: str(len(runs)), "OMP_NUM_THREADS": str(needed.cpus)}

        def begin(run: PlannedRun) -> RankStep:
            child = local.start(run, local.Capacity(1, (), needed.tasks), 0, environ=variables)
            asked.children.append(child)
            if asked.by:  # in this moment
                child.send(signal.SIGTERM)
            return RankStep(child.process, child.attempt)

        return supervise(runs, begin, asked, place)


@contextmanager
def shared_gpus(used: bool) -> Iterator[dict[str, str]]:
    """NVIDIA's MPS for the processes that are started with these variables, where it is installed."""
    if not used or not shutil.which(MPS):
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        env = os.environ | found
        subprocess.run([MPS, "-d"], env=env, check=False)
        try:
            yield found
        finally:
            subprocess.run([MPS], env=env, input=b"quit\n", check=False)


def waits_for_its_origin(config: RunConfig, place: Place) -> bool:
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
