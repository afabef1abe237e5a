"""A checkpoint of one world size or ZeRO stage, cut anew for another: DeepSpeed's universal form."""

import argparse
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from pipeline.errors import WorkFailed
from pipeline.processes.ranks import Ranks
from pipeline.runs.checkpoints import TEMPORARY


@contextmanager
def universal(source: Path, ranks: Ranks) -> Iterator[Path]:
    """A directory, gone afterwards, that holds `source` under its own name with every tensor whole.

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
