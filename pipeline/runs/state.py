"""How far a run has come, in one small file, `runs/<id>/state.json`, which its rank 0 replaces as it goes on.

Whoever asks how a run stands needs no log for it, however long that is.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.config.typed import build
from pipeline.files import partial_name
from pipeline.runs.directory import STATE
from tnt.untrusted.reading import read_json


@dataclass(frozen=True)
class RunState:
    attempt: int = 0
    job: str = ""  # as 17, or 17_3 of an array; "" outside of a scheduler
    cluster: str = ""  # whose job that is
    step: int = 0
    steps: int = 0  # of the whole run
    images_per_step: int = 0
    images_per_second: float | None = None  # None until it was measured
    top1: float | None = None  # percent; the last measured, of what counts
    time: float = 0.0


def write(directory: Path, state: RunState) -> None:
    """Not flushed to the disk, as the next one follows soon; nor is a full disk a reason to stop training."""
    path = directory / STATE
    partial = partial_name(path)
    with contextlib.suppress(OSError):
        partial.write_text(json.dumps(asdict(state)) + "\n")
        os.replace(partial, path)


def read(directory: Path) -> RunState | None:
    """None before the first step, or where an older version of the code trained it."""
    try:
        return build(RunState, read_json(directory / STATE), "state")
    except (FileNotFoundError, ValueError):
        return None
