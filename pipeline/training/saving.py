"""When a run's checkpoints begin, and what becomes of one that cannot be stored."""

from pathlib import Path

from pipeline.runs.checkpoints import Checkpoints, SaveFailed
from pipeline.training.logger import RunLogger
from pipeline.training.trainer import Trainer


def save(trainer: Trainer, checkpoints: Checkpoints, journal: RunLogger, last: bool) -> None:
    """Copy this step's state, which is published while the run goes on. The last one is waited for, and one
    before an evaluation, which may take longer than all steps since."""
    settle(trainer, checkpoints, journal)
    state, unsaid, parts = trainer.state, None, [trainer.copy()]
    try:
        parts.append(journal.copy())  # what is said of its steps belongs to it
    except OSError as error:
        unsaid = error

    def write(directory: Path) -> list[str]:
        if unsaid:
            raise unsaid
        return [name for part in parts for name in part(directory)]

    checkpoints.begin(state.step, write, trainer.checkpoint_state(), state.best)
    if last:
        checkpoints.finish()
    elif trainer.evaluation_is_due():
        settle(trainer, checkpoints, journal)
    trainer.saved_now()
    journal.resumed_clock()


def settle(trainer: Trainer, checkpoints: Checkpoints, journal: RunLogger) -> None:
    """Wait for the checkpoint that is being written. One that could not be stored is noted; the next one is
    tried when it is due."""
    most = trainer.config.engine.failed_saves
    try:
        if checkpoints.finish():
            trainer.failed_saves = 0
    except SaveFailed as error:
        trainer.failed_saves += 1
        if trainer.failed_saves == most:
            raise
        trainer.state.events.append(f"the checkpoint of step {checkpoints.newest} was not written")
        journal.note(f"{error}; training goes on ({trainer.failed_saves} of {most} failures in a row)")
