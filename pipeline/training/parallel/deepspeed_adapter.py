"""All that the engine uses of DeepSpeed beyond its documented interface. Read in DeepSpeed 0.19.8."""

import argparse
import io
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import WorkFailed
from pipeline.processes.ranks import Ranks
from pipeline.runs.checkpoints import TEMPORARY


def start(device: torch.device) -> Any:
    """DeepSpeed on the device we chose, silent, and without compiling anything for its start."""
    os.environ["DS_ACCELERATOR"] = device.type
    import deepspeed
    import deepspeed.ops

    # An operator for inference, which DeepSpeed would build now; that takes half a minute and a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    return deepspeed


def write_by(engine: Any, files: "CheckpointFiles") -> None:
    """DeepSpeed's `engine` writes and reads checkpoints by `files`, and copies no script beside them."""
    engine.checkpoint_engine = files
    engine._copy_recovery_script = lambda path: None


def count_step(engine: Any, applied: bool) -> None:
    """What `step` notes of an update, for checkpoints. Without ZeRO it only updates beside that, and would
    walk through all modules, and take gradients that are not finite."""
    engine.micro_steps += 1
    engine.global_steps += 1
    engine.global_samples += engine.train_batch_size()
    engine.skipped_steps += not applied


def choose_form(engine: Any, universal: bool) -> None:
    """DeepSpeed takes this setting when an engine is made; we know only later which form is to be read."""
    engine._config.load_universal_checkpoint = universal


class CheckpointFiles:
    """How DeepSpeed writes and reads: what it saves stays in memory, as it is at that moment."""

    name = "files"

    def __init__(self) -> None:
        self._saved: dict[str, memoryview] = {}

    def take(self) -> dict[str, memoryview]:
        """What was saved since the last call, by path."""
        saved, self._saved = self._saved, {}
        return saved

    def save(self, state_dict: Any, path: str) -> None:
        content = io.BytesIO()
        torch.save(state_dict, content)
        self._saved[Path(path).as_posix()] = content.getbuffer()

    def load(self, path: str, map_location: Any = None) -> Any:
        return torch.load(path, map_location=map_location, weights_only=True)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Nothing is written yet."""

    def create(self, info: Any) -> None:
        """DeepSpeed announces a checkpoint."""

    def commit(self, info: Any) -> bool:
        return True

    def is_decoupled(self) -> bool:
        return False

    def is_data_parallel_writer(self, rank: int) -> bool:
        return rank == 0


@contextmanager
def plain_pickles() -> Iterator[None]:
    """Every torch.load reads plain values only, also those in DeepSpeed, which would accept any pickle."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    # What DeepSpeed's files hold besides tensors and builtins; to make one of these runs no code of the file.
    classes = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        with torch.serialization.safe_globals(classes):
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def universal(source: Path, ranks: Ranks) -> Iterator[Path]:
    """A directory, gone afterwards, that holds `source` under its own name with every tensor whole: the
    universal form.

    Rank 0 converts. It lies among the checkpoints, where the next start sweeps it away should this one die.
    """
    folder = source.parents[1] / f"{TEMPORARY}universal-{secrets.token_hex(4)}"  # that of rank 0 counts

    def convert() -> Path:
        try:
            folder.mkdir(mode=0o700)
            _convert(source, folder / source.name)
        except Exception as error:  # DeepSpeed raises whatever it meets
            raise WorkFailed(
                f"{source} cannot be cut for {ranks.world} ranks ({type(error).__name__}: {error}); go on "
                "with the world size and engine.zero_stage that it was written with"
            ) from error
        return folder

    try:
        yield ranks.lead(convert)
        ranks.gather(None)  # nobody reads it any more
    finally:
        if ranks.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


def _convert(source: Path, target: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    options = argparse.Namespace(
        input_folder=str(source),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        ds_to_universal.main(options)
