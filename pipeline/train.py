"""Train one run, or go on with it where it stands; killed at any moment, the same command continues it.

    python pipeline/train.py model=tnt_s data=imagenet          one process, one device
    torchrun --nproc-per-node 8 pipeline/train.py model=tnt_b
    srun python pipeline/train.py recipe=finetune_384 recipe.init=<a run's id, or a file of weights>
    python pipeline/train.py --config runs/<id>/config.yaml     a run as it was asked for before
    python pipeline/train.py scale=demo                         the whole way in two minutes on a laptop

SIGTERM, SIGUSR1 and Ctrl-C end it after the step or the batch of an evaluation it is in, with a checkpoint;
under Slurm it requeues itself.
"""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

try:
    import pipeline  # noqa: F401
except ModuleNotFoundError:
    sys.exit("error: not installed for this Python; `make demo` installs into .venv: activate that")

from pipeline.config import run as configs
from pipeline.config.identity import id_of, run_id, science
from pipeline.config.overrides import from_command_line
from pipeline.config.run import RunConfig
from pipeline.data import dataset
from pipeline.errors import UserError, WorkFailed, command
from pipeline.files import check_writable, umask_for
from pipeline.processes.device import device_name, find_device
from pipeline.processes.interrupt import Interrupt
from pipeline.processes.place import Place, find_place, preempted, requeue
from pipeline.processes.ranks import Ranks, joined, peer_errors
from pipeline.runs import attempts, history, records
from pipeline.runs.attempts import REQUEUING, AttemptLog, HeldByEarlierStart
from pipeline.runs.checkpoints import Checkpoints, commits
from pipeline.runs.directory import CHECKPOINTS, run_directory, write_config
from pipeline.runs.state import RunState

if TYPE_CHECKING:
    import torch

    from pipeline.training.logger import RunLogger
    from pipeline.training.trainer import Trainer

LAST_RESORT = 90.0  # seconds from a signal to the next boundary; then the job is requeued as it stands


@dataclass(frozen=True)
class Run:
    config: RunConfig
    id: str
    fingerprint: str  # of the data
    directory: Path
    ranks: Ranks
    umask: int  # the user's


def main(argv: Sequence[str], config: RunConfig | None = None) -> int:
    """`config`: one that the caller has read, in place of a command line."""
    if not argv and config is None:
        raise UserError("say what to train, as in scale=demo or model=tnt_s data=imagenet; --help says more")
    with Interrupt() as interrupt:
        config = config or from_command_line(argv, __doc__ or "")
        if config is None:
            return 0
        place = find_place()
        dataset.prepare(config.data)
        fingerprint = dataset.fingerprint(config.data)
        id = run_id(config, fingerprint)
        attempt: AttemptLog | None = None
        if place.job:
            interrupt.otherwise(LAST_RESORT, lambda: give_up(place, interrupt, attempt))
        engine = config.engine
        device = find_device(engine.device, place, engine.threads, engine.deterministic)
        with joined(place, device, config.cluster.start_timeout) as ranks:
            umask = os.umask(umask_for(Path(config.paths.runs)))  # what a run writes is not for others
            run = Run(config, id, fingerprint, run_directory(config, id), ranks, umask)
            if not ranks.share(records.exists(config.paths.records, id)):
                try:
                    with opened(run) as attempt, peer_errors(ranks.world):
                        train(run, device, interrupt, attempt)
                except HeldByEarlierStart as error:
                    if ranks.rank == 0:
                        print(f"{error}; this job is queued again until that has ended", flush=True)
                    requeue_or_fail(ranks, str(error))
            elif ranks.rank == 0:
                path = records.record_path(config.paths.records, id)
                record = records.read(path)
                print(f"run {id} has finished, {', '.join(record.hosts)}, {record.ended[:10]}: {path}")
        if interrupt.received is signal.SIGINT:
            raise KeyboardInterrupt
    return 0


def train(run: Run, device: "torch.device", interrupt: Interrupt, attempt: AttemptLog) -> None:
    from pipeline.training.logger import RunLogger
    from pipeline.training.profile import profiled
    from pipeline.training.saving import save, settle
    from pipeline.training.trainer import Trainer

    config, ranks = attempt.fitted(run.config, run.ranks), run.ranks
    apart = Ranks(ranks.place, timedelta(seconds=config.cluster.start_timeout))
    with contextlib.ExitStack() as stack:
        trainer = stack.enter_context(Trainer(config, ranks, device))
        engine = config.engine
        part = trainer.steps / engine.keep_for_audit if engine.keep_for_audit else 0
        checkpoints = stack.enter_context(Checkpoints(run.directory / CHECKPOINTS, apart, engine.keep, part))
        values = configs.plain(config)
        state = RunState(attempt.number, ranks.place.job, ranks.place.cluster)
        journal = RunLogger(
            run.directory,
            config.logging,
            trainer.size(),
            rank=ranks.rank,
            id=run.id,
            values=values,
            state=state,
        )
        stack.callback(journal.close)
        begin(run, trainer, checkpoints, journal, attempt)
        step_profiled = stack.enter_context(profiled(config.engine.profile, run.directory, ranks.rank))

        # An evaluation comes after the checkpoint of its step: it may still have to be done.
        end = trainer.asked_to_end(interrupt) or not evaluated(trainer, journal, interrupt)
        while not end and trainer.epoch < config.recipe.epochs:
            for done in trainer.steps_of_epoch(interrupt):
                step_profiled()
                step, end = trainer.state.step, done.asked_to_end
                attempt.step = step
                journal.step(step, done.values, done.wait, done.slowest)
                if end or done.due or trainer.checkpoint_is_due():
                    save(trainer, checkpoints, journal, last=end or step == trainer.steps)
                end = end or not evaluated(trainer, journal, interrupt)
                if end:
                    break
        settle(trainer, checkpoints, journal)
        interrupt.settle()
        if end:
            stop(run, trainer, journal, interrupt, attempt)
        else:
            finish(run, trainer, journal, attempt)


def begin(
    run: Run, trainer: "Trainer", checkpoints: Checkpoints, journal: "RunLogger", attempt: AttemptLog
) -> None:
    """Load the newest checkpoint, if there is one, and log how the run begins."""
    ranks = run.ranks
    found = checkpoints.resume()
    if found:
        trainer.load(found)
    why = trainer.choose_kernels(found.state.get("kernels", "") if found else "")
    step = trainer.state.step
    changed = ranks.lead(
        lambda: (
            history.changes(run.directory, commits(run.directory / CHECKPOINTS))
            + journal.rewind(step, found.path if found else None)
        )
    )
    trainer.state.events += changed
    hosts = tuple(sorted(set(ranks.gather(socket.gethostname()))))
    attempt.step = step
    changed += ranks.lead(lambda: attempt.begin(ranks.world, hosts, ranks.place, device_name(trainer.device)))
    for line in (*(found.passed_over if found else ()), *changed):
        journal.note(line)
    if found:
        journal.note(f"run {run.id} goes on after step {step:,} of {trainer.steps:,}")
    else:
        origin = f"; {trainer.origin}" if trainer.origin else ""
        journal.note(f"run {run.id} begins: {trainer.steps:,} steps, in {run.directory}{origin}")
    if why:
        journal.note(why)


def evaluated(trainer: "Trainer", journal: "RunLogger", interrupt: Interrupt) -> bool:
    """Measure and log where that is due; False where all ranks are to end before it is done."""
    from pipeline.training.evaluation import EvaluationStopped

    if not trainer.evaluation_is_due():
        return True
    try:
        trainer.measure(interrupt)
    except EvaluationStopped:
        return False
    values = {
        f"{kind}_{name}" if kind != "raw" else name: float(getattr(measures, name))
        for kind, measures in trainer.measured.items()
        for name in ("top1", "top5", "loss")
    }
    journal.evaluation(trainer.epoch, values)
    return True


def stop(
    run: Run, trainer: "Trainer", journal: "RunLogger", interrupt: Interrupt, attempt: AttemptLog
) -> None:
    """The run was asked to end, and its checkpoint is written: requeue the job where that is wanted."""
    step, ranks = trainer.state.step, run.ranks
    received = [signal for signal in ranks.gather(interrupt.received) if signal]
    journal.note(f"ended by {received[0].name} after step {step:,}; the same command goes on from there")
    taken = ranks.lead(lambda: bool(ranks.place.job) and preempted(ranks.place))
    again = ranks.place.job and (taken or any(signal.name in REQUEUING for signal in received))
    if again and not taken and ranks.lead(lambda: attempts.fruitless(run.directory, step)):
        raise WorkFailed(
            f"{attempts.FRUITLESS} starts in a row came no further than step {step}: too short a time "
            f"limit, or something hangs; job {ranks.place.job} is not requeued"
        )
    ranks.lead(lambda: attempt.end(attempts.STOPPED, received[0].name, taken))
    if again:
        requeue_or_fail(ranks, f"ended by {received[0].name} after step {step:,}")
        journal.note(f"job {ranks.place.job} is requeued")


def requeue_or_fail(ranks: Ranks, why: str) -> None:
    if refused := ranks.lead(lambda: requeue(ranks.place)):
        raise WorkFailed(f"{why}; job {ranks.place.job} could not be requeued: {refused}")


def finish(run: Run, trainer: "Trainer", journal: "RunLogger", attempt: AttemptLog) -> None:
    from pipeline.training.completion import complete

    weights = trainer.final_weights()
    run.ranks.lead(journal.flush)

    def publish() -> str:
        record = complete(trainer, weights, run.id, run.fingerprint, run.umask)
        attempt.end(attempts.FINISHED)
        path = records.record_path(run.config.paths.records, run.id)
        return f"run {run.id}: top-1 {record.best.top1:.2f} %; weights in {run.directory}, record in {path}"

    journal.note(run.ranks.lead(publish))


@contextlib.contextmanager
def opened(run: Run) -> Iterator[AttemptLog]:
    """The run's directory, which no other process trains in meanwhile; a failure is noted there."""
    with contextlib.ExitStack() as stack:

        def enter() -> int:
            run.directory.mkdir(parents=True, exist_ok=True)
            check_writable(Path(run.config.paths.records), "paths.records")  # before it trains, not after
            stack.enter_context(attempts.lease(run.directory, run.ranks.place.job))
            attempts.register(
                run.directory, id_of(science(run.config), ""), dataset.described(run.config.data)
            )
            write_config(run.config, run.id)
            return attempts.next_number(run.directory)

        attempt = AttemptLog(run.directory, run.ranks.lead(enter))
        try:
            yield attempt
        except Exception as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            rank = f"rank {run.ranks.rank}: " if run.ranks.world > 1 else ""
            try:
                attempt.fail(f"{rank}{kind}{error}", error)
            except OSError as second:  # a full disk may be what has failed
                print(f"error: {run.directory}: {second.strerror}", file=sys.stderr)
            raise


def give_up(place: Place, interrupt: Interrupt, attempt: AttemptLog | None) -> None:
    """No step ended in time, and the scheduler is about to kill the job: requeue it and exit. The note comes
    last: what keeps the step from ending may be the file system that it is written to."""
    print("error: no step ended in time; the last checkpoint is where the run goes on", file=sys.stderr)
    asked = interrupt.received.name if interrupt.received else ""
    again = asked in REQUEUING or preempted(place)
    if place.rank == 0 and again:
        requeue(place)
    try:
        if place.rank == 0 and attempt and asked:
            attempt.fail(f"no step ended within {LAST_RESORT:.0f} s of {asked}")
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    finally:
        os._exit(attempts.AGAIN if again else 1)


if __name__ == "__main__":
    command(main, stopped="stopped; the same command goes on from there")
