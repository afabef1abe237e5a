"""Records and runs of others, edited or damaged: named and left out, and everything else comes out."""

import json
import shutil
from pathlib import Path

import pytest

from ablations.report import main as report
from ablations.reporting.collect import collect
from pipeline.config.identity import id_of
from pipeline.config.overrides import compose
from pipeline.launching.plan import PlannedRun
from pipeline.launching.status import statuses
from pipeline.runs import log, records
from pipeline.runs.directory import run_directory
from tests.faults.kinds import KINDS
from tests.faults.limits import bounded

SHIPPED = Path("results/shipped")
LINES = {
    "a flipped key": '{"stEp": 3, "time": 1, "images_per_second": 2}',
    "text for a number": '{"step": 3, "time": "now", "top1": "\\u001b[2J", "evaluated": []}',
    "no steps": '{"step": 3, "time": 1, "start": 1, "steps": 0, "images": 8}',
    "null": '{"step": 3, "time": null, "start": null}',
    "nested": '{"step": 3, "time": {"a": [1]}, "start": 1}',
    "not a number": '{"step": 3, "time": NaN, "images_per_second": Infinity}',
    "10²⁹": '{"step": 3, "time": ' + "1" + "0" * 29 + "}",
    "no object": "[3]",
}


def edited(path: Path, folder: Path, change) -> None:
    """A record with a change, whose hash and id are right again: only its sense is wrong."""
    values = json.loads(path.read_text())
    change(values)
    values.pop("sha256")
    schema = values.pop("schema")
    values["id"] = id_of(values["science"], values["fingerprint"])
    values = {"schema": schema} | values | {"sha256": records.digest(values)}
    (folder / f"{values['id']}.json").write_text(json.dumps(values))


def setting(section, name, value):
    return lambda values: values["science"][section].update({name: value})


CHANGES = {
    "a list for a rate": setting("recipe", "lr", [1]),
    "text for a rate": setting("recipe", "lr", "\x1b[2J"),
    "null for a rate": setting("recipe", "epochs", None),
    "truth for a rate": setting("recipe", "epochs", True),
    "a number for a name": setting("data", "name", 5),
    "a list of lists": lambda values: values["science"]["data"]["augmentation"].update(mean=[[1]]),
    "10¹⁹ images": lambda values: values["raw"].update(images=10**19 * 5),
    "images in text": lambda values: values["raw"].update(images="many"),
    "no measures": lambda values: values.update(raw=None),
    "hosts that are a number": lambda values: values.update(hosts=5),
    "versions that are a list": lambda values: values.update(versions=[]),
    "a start in words": lambda values: values.update(started="\x1b[2J"),
    "less than nothing": lambda values: values.update(device_hours=-1),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_record_of_another_sense_is_left_out(what, tmp_path):
    edited(sorted(SHIPPED.glob("*.json"))[0], tmp_path, CHANGES[what])
    shutil.copy(sorted(SHIPPED.glob("*.json"))[1], tmp_path)
    with bounded():
        found, problems = records.read_all(tmp_path)
    assert len(found) == len(problems) == 1


def test_the_report_comes_out_beside_every_kind_of_bad_record(tmp_path, capsys):
    for number, plant in enumerate(KINDS.values()):
        plant(tmp_path / f"{number:012x}.json")
    shutil.copy(sorted(SHIPPED.glob("*.json"))[0], tmp_path)
    with bounded():
        found = collect([tmp_path], "demo")
    assert len(found.records) == 1
    assert len(found.problems) == len(KINDS)
    options = ["--scale", "demo", "--missing", "--records", str(tmp_path), "--results", str(tmp_path / "out")]
    assert report(options) == 0
    assert report([*options, "--strict"]) == 1
    assert all(line.isprintable() for line in capsys.readouterr().err.split("\n"))


@pytest.mark.parametrize("what", LINES)
def test_lines_of_a_runs_files_that_make_no_sense(what, tmp_path):
    for name in ("metrics.jsonl", "timing.jsonl", "attempts.jsonl"):
        (tmp_path / name).write_text(LINES[what] + "\n")
    with bounded():
        log.metrics(tmp_path)
        assert log.spent(tmp_path).device_hours >= 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["lease", "attempts.jsonl", "timing.jsonl", "metrics.jsonl", "log.txt"])
def test_the_status_of_all_runs_comes_out(name, kind, tmp_path):
    config = compose([f"paths.runs={tmp_path}", f"paths.records={tmp_path}/records"])
    runs = [PlannedRun(config, id) for id in ("0123456789ab", "ba9876543210")]
    directory = run_directory(config, runs[0].id)
    directory.mkdir(parents=True)
    KINDS[kind](directory / name)
    with bounded():
        assert len(statuses(runs, {})) == 2
