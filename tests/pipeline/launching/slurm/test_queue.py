"""What Slurm said is used again for some seconds, by the clock that there is."""

import os
import time

import pytest

from pipeline.launching.slurm import commands, queue
from pipeline.launching.slurm.launches import FOLDER


@pytest.mark.parametrize(
    ("ahead", "asked"), [(-1, 0), (-60, 1), (3600, 1)]
)  # the last: the clock was set back
def test_what_slurm_said_is_used_again_while_it_is_new(ahead, asked, tmp_path, monkeypatch):
    questions = []
    monkeypatch.setattr(commands, "listing", lambda: questions.append("") or "")
    kept = tmp_path / FOLDER / queue.LISTING
    kept.parent.mkdir()
    kept.touch()
    os.utime(kept, (time.time() + ahead,) * 2)
    queue.look(tmp_path, age=30)
    assert len(questions) == asked
