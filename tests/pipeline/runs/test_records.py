"""Records: published once and whole, believed only when nothing about them was changed."""

import dataclasses
import json
import multiprocessing
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.identity import run_id, science
from pipeline.config.overrides import compose
from pipeline.errors import UserError, WorkFailed
from pipeline.runs import provenance, records
from pipeline.runs.answers import as_text
from pipeline.runs.records import BadRecord, Measures, Record

DATA = "d" * 64


def record(seed: int = 0, **changes: object) -> Record:
    config = compose(["scale=demo", f"seed={seed}"])
    values = {
        "id": run_id(config, DATA),
        "science": science(config),
        "fingerprint": DATA,
        "scale": "demo",
        "seed": seed,
        "ablation": "inner_heads",
        "cell": "4",
        "raw": Measures(96.5, 99.9, 0.21, 360),
        "ema": Measures(96.9, 99.9, 0.2, 360),
        "exported": "ema",
        "weights_sha256": "a" * 64,
        "params": 1000,
        "macs": 2000,
        "steps": 40,
        "images_per_second": 123.4,
        "device_hours": 0.5,
        "device": "a processor",
        "world": 2,
        "hosts": ("one", "two"),
        "jobs": (),
        "attempts": 3,
        "commit": "c" * 40,
        "dirty": False,
        "versions": {"torch": "2"},
        "started": "2026-01-31T10:00:00Z",
        "ended": "2026-01-31T11:00:00Z",
        "events": ("checkpoint 20 was damaged, 10 was used",),
    }
    return Record(**(values | changes))


def test_it_comes_back_as_it_was(tmp_path):
    path = records.publish(record(), tmp_path)
    assert records.read(path) == record()
    assert records.read(path).best.top1 == 96.9
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{record().id}.json"]
    assert records.exists(tmp_path, record().id)
    assert not records.exists(tmp_path, "0" * 12)


def test_the_first_record_of_a_run_stays(tmp_path):
    path = records.publish(record(), tmp_path)
    before = path.read_bytes()
    assert records.publish(record(attempts=9), tmp_path) == path
    assert path.read_bytes() == before


def _publish(directory: Path, attempt: int) -> None:
    records.publish(record(attempts=attempt), directory)


def test_of_many_at_once_one_is_published_whole(tmp_path):
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=_publish, args=(tmp_path, attempt)) for attempt in range(1, 6)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * 5
    (path,) = tmp_path.iterdir()
    assert records.read(path).attempts in range(1, 6)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkFailed, match="No space left"):
        records.publish(record(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_edit_is_noticed(tmp_path):
    path = records.publish(record(), tmp_path)
    text = path.read_text()
    for line in text.splitlines():
        value = re.search(r'": (-?[\d.]+|true|false|null|"[^"]*")', line)
        if value is None:
            continue
        changed = '"other"' if value[1].startswith('"') else "17" if value[1] != "17" else "18"
        path.write_text(text.replace(line, line.replace(value[1], changed, 1), 1))
        if json.loads(path.read_text()) == json.loads(text):
            continue
        with pytest.raises(BadRecord, match=path.name):
            records.read(path)


def test_a_record_of_other_science_is_refused():
    other = science(compose(["scale=demo", "recipe.lr=5"]))
    with pytest.raises(BadRecord, match="not that of its science"):
        record(science=other)


@pytest.mark.parametrize(
    "wrong",
    [{"scale": "paper"}, {"seed": 1}, {"exported": "best"}, {"ema": None}, {"started": "yesterday"},
     {"world": 0}, {"device_hours": -1.0}, {"images_per_second": float("nan")},
     {"right": as_text(np.ones(360, bool))}, {"right": "AAAA"}, {"right": "é"}],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(BadRecord):
        dataclasses.replace(record(), **wrong)


def test_the_images_that_were_right_are_those_of_its_accuracy():
    right = np.arange(360) % 9 > 0
    measures = Measures(100 * 320 / 360, 99.9, 0.2, 360)
    assert np.array_equal(record(ema=measures, right=as_text(right)).right_images(), right)


@pytest.mark.parametrize("wrong", [(99.0, 98.0, 0.1, 5), (101.0, 101.0, 0.1, 5), (1.0, 2.0, float("nan"), 5)])
def test_measures_that_cannot_be_are_refused(wrong):
    with pytest.raises(BadRecord):
        Measures(*wrong)


def test_the_good_are_read_and_the_bad_are_named(tmp_path):
    good = [records.publish(record(seed), tmp_path) for seed in range(3)]
    (tmp_path / "copy.json").write_bytes(good[0].read_bytes())
    (tmp_path / "torn.json").write_bytes(good[1].read_bytes()[:100])
    (tmp_path / "list.json").write_text("[]")
    old = json.loads(good[2].read_text()) | {"schema": 0}
    (tmp_path / "old.json").write_text(json.dumps(old))
    found, problems = records.read_all(tmp_path)
    assert sorted(one.seed for one in found) == [0, 1, 2]
    assert len(problems) == 4
    for name in ("copy", "torn", "list", "old"):
        assert sum(f"{name}.json" in problem for problem in problems) == 1
    with pytest.raises(UserError, match="no record"):
        records.read(tmp_path / "missing.json")


def test_every_field_is_documented_by_a_type():
    assert all(field.type for field in dataclasses.fields(Record))


def test_the_code_is_named_with_whether_it_was_changed(tmp_path):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    assert provenance.code(tmp_path / "nowhere") == provenance.Code("unknown", True)
    git("init")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "first")
    assert re.fullmatch(r"[0-9a-f]{40}", provenance.code(tmp_path).commit)
    assert not provenance.code(tmp_path).dirty
    (tmp_path / "file").write_text("2")
    assert provenance.code(tmp_path).dirty
    assert {"python", "torch", "deepspeed"} <= set(provenance.versions())
