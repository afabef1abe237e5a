"""launch.py trains on this machine: several at a time, each once, to the end, whatever happens meanwhile."""

import contextlib
import io
import json
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import launch
from pipeline.launching import local
from pipeline.runs.checkpoints import COMMITS
from tests.pipeline.packed import pack_digits
from tests.pipeline.ranks import DEADLINE, ROOT, start

SETTINGS = (
    "ablation=position_encoding",
    "scale=demo",
    "cluster=local",
    "model=tnt_ti",
    "data.image_size=32",
    "recipe.global_batch=96",
    "recipe.warmup_epochs=0",
    "logging.every=1",
    "logging.seconds=0.5",
    "logging.tensorboard=false",
)


@dataclass(frozen=True)
class Place:
    folder: Path
    settings: tuple[str, ...]

    def start(self, *more: str) -> subprocess.Popen[str]:
        return start([ROOT / "pipeline/launch.py", *self.settings, *more], cold=True)

    def launch(self, *more: str) -> tuple[int, str, str]:
        """In this process: its status, and what it printed."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = launch.main([*self.settings, *more])
        return status, out.getvalue(), err.getvalue()

    def status(self, capsys: pytest.CaptureFixture[str], *more: str) -> list[dict]:
        launch.main([*self.settings, *more, "action=status", "json=true"])
        return json.loads(capsys.readouterr().out)["runs"]

    def records(self) -> set[str]:
        return {path.stem for path in (self.folder / "records").glob("*.json")}

    def step(self, id: str) -> int:
        path = self.folder / "runs" / id / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0


@pytest.fixture(scope="module")
def place(tmp_path_factory, warm_local_runs) -> Place:
    folder = tmp_path_factory.mktemp("lab")
    root = pack_digits(folder / "digits")
    return Place(
        folder,
        (
            *SETTINGS,
            f"data.root={root}",
            f"paths.runs={folder / 'runs'}",
            f"paths.records={folder / 'records'}",
        ),
    )


def until(condition, *running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert all(process.poll() is None for process in running), running[0].communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)  # between two looks


ONE_EPOCH = ("recipe.epochs=1", "cells=none,patch")


@pytest.fixture(scope="module")
def broken(place) -> tuple[int, str, str]:
    """Two cells, one of which cannot go on: it is said to have a checkpoint, and none can be read."""
    config = [*place.settings, *ONE_EPOCH]
    [_, second] = launch.planned(launch.requested_runs(launch.parse(config)))
    folder = place.folder / "runs" / second.id / "checkpoints"
    folder.mkdir(parents=True)
    (folder / COMMITS).write_text('{"step": 3, "time": 0, "manifest": ""}\n')
    return place.launch(*ONE_EPOCH)


@pytest.mark.slow
def test_one_run_that_fails_does_not_stop_the_others(place, broken, capsys):
    status, out, err = broken
    assert status == 1, err
    good, bad = place.status(capsys, *ONE_EPOCH)
    assert (good["state"], good["step"], good["steps"], good["attempts"]) == ("done", 14, 14, 1)
    assert good["top1"] > 0
    assert bad["state"] == "broken"
    assert "1 checkpoints were written" in bad["error"]
    assert place.records() == {good["id"]}
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert failed == [f"failed: position_encoding/patch ({bad['id']}): {bad['error']}"]
    assert f"{good['top1']:.2f}" in out


@pytest.mark.slow
def test_what_was_started_shows_its_progress_and_where_its_output_is(place, broken):
    _, _, err = broken
    assert "starts;" in err
    assert "output.log has what it prints" in err
    assert re.search("[12] at work", err)  # the second has failed before it is seen, on some machines
    assert "is done: top-1" in err


@pytest.mark.slow
def test_retry_starts_what_broke_and_nothing_else(place, broken, capsys):
    before = place.status(capsys, *ONE_EPOCH)
    (place.folder / "runs" / before[1]["id"] / "checkpoints" / COMMITS).unlink()
    status, _, err = place.launch(*ONE_EPOCH, "action=retry")
    assert status == 0, err
    good, repaired = place.status(capsys, *ONE_EPOCH)
    assert (good["state"], good["attempts"]) == ("done", 1)
    assert repaired["state"] == "done"
    assert place.records() == {good["id"], repaired["id"]}
    assert err.count(" starts;") == 1
    assert "python ablations/report.py --scale demo" in err

    # All is done: the same command once more starts nothing.
    status, _, err = place.launch(*ONE_EPOCH)
    assert (status, err.count(" starts;")) == (0, 0)
    assert place.status(capsys, *ONE_EPOCH) == [good, repaired]


@pytest.mark.slow
def test_logs_end_with_what_happened(place, broken, capsys):
    launch.main([*place.settings, *ONE_EPOCH, "action=logs"])
    out = capsys.readouterr().out
    assert "output.log" in out
    assert "top-1" in out


@pytest.mark.slow
def test_a_finished_run_begins_anew_only_when_asked(place, broken, capsys):
    """It says where and when the record was made that answers; what is set aside is kept."""
    one = ("recipe.epochs=1", "cells=none")
    [at] = place.status(capsys, *one)
    record = place.folder / "records" / f"{at['id']}.json"
    before = record.read_bytes()
    assert at["where"] == f"{socket.gethostname()}, {json.loads(before)['ended'][:10]}"
    assert place.launch(*one)[0] == 0
    assert record.read_bytes() == before
    status, _, err = place.launch(*one, "fresh=true")
    assert (status, err.count(f"is done: {at['where']}; it begins anew")) == (0, 1)
    assert record.read_bytes() != before
    (kept,) = (place.folder / "records/earlier").iterdir()
    assert kept.read_bytes() == before
    (directory,) = (place.folder / "runs/earlier").iterdir()
    assert (directory / "model.safetensors").exists()


@pytest.mark.slow
def test_ctrl_c_loses_nothing_and_a_second_launch_takes_over(place, capsys):
    """Two launches at once: one trains, the other waits, and goes on where the first was stopped."""
    more = ("recipe.epochs=5", "cells=both")
    first = place.start(*more)
    [run] = launch.planned(launch.requested_runs(launch.parse([*place.settings, *more])))
    until(lambda: place.step(run.id) >= 1, first)
    [at] = place.status(capsys, *more)
    assert at["state"] == "running"
    assert at["where"].startswith("process ")
    second = place.start(*more)
    lines = iter(second.stderr.readline, "")
    assert "is being trained by process" in next(lines)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=DEADLINE)
    assert first.returncode == 130, err
    assert "stopped; the same command goes on from there" in err
    _, err = second.communicate(timeout=DEADLINE)
    assert second.returncode == 0, err
    assert "was not finished there; it continues here" in err
    [at] = place.status(capsys, *more)
    assert (at["state"], at["attempts"]) == ("done", 2)
    assert "goes on after step" in (place.folder / "runs" / run.id / "log.txt").read_text()
    steps = [
        json.loads(line)
        for line in (place.folder / "runs" / run.id / "metrics.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in steps if "loss" in row and "evaluated" not in row] == list(range(1, 71))


@pytest.mark.slow
def test_cancel_asks_and_then_ends_a_run_softly(place, capsys, monkeypatch):
    more = ("recipe.epochs=40", "cells=none")
    process = place.start(*more)
    [run] = launch.planned(launch.requested_runs(launch.parse([*place.settings, *more])))
    until(lambda: place.step(run.id) >= 1, process)
    with pytest.raises(launch.UserError, match="there is no terminal to ask at; yes=true"):
        launch.main([*place.settings, *more, "action=cancel"])
    assert launch.main([*place.settings, *more, "action=cancel", "yes=true"]) == 0
    assert "asked to end: process" in capsys.readouterr().out
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1, err
    assert "ended by SIGTERM" in err
    [at] = place.status(capsys, *more)
    assert at["state"] == "stopped"
    assert "ended by SIGTERM after step" in at["error"]


@pytest.mark.slow
def test_a_rehearsal_shows_that_an_interrupted_run_goes_on_exactly(place, capsys, monkeypatch):
    before, written = place.records(), []

    def start(run, space, slot):
        written.append(run.config.engine)
        return original(run, space, slot)

    original = local.start
    monkeypatch.setattr(local, "start", start)
    assert launch.main([*place.settings, "recipe.epochs=3", "cells=patch", "action=rehearse"]) == 0
    assert "those of a run left alone, to the last digit" in capsys.readouterr().out
    assert place.records() == before
    assert not list((place.folder / "runs" / ".rehearsals").iterdir())
    assert len(written) >= 2
    assert all(engine.deterministic for engine in written)  # or last digits could differ on a GPU
