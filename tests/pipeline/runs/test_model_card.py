"""The card of an exported model says what its run's record says, and of no other run."""

import hashlib
import re
from pathlib import Path

import pytest

import tnt
from pipeline.config.overrides import compose
from pipeline.runs import records
from pipeline.runs.records import Record
from tests.ablations.recorded import record_of
from tnt import weights
from tnt.export import main


def of_a_run(folder: Path) -> tuple[Path, Record, list[str]]:
    """The record of a run of the demo, and the command that exports its weights with it."""
    config = compose(["scale=demo", "seed=3"])
    weights.save(tnt.TNT(config.model.network), folder / "w.safetensors")
    digest = hashlib.sha256((folder / "w.safetensors").read_bytes()).hexdigest()
    changes = {"hosts": ("a|b", "c\nd"), "jobs": (), "versions": {"torch": "2.15", "timm": "1.0"}}
    record = record_of(config, 81.31, top5=95.6, weights_sha256=digest, **changes)
    path = records.publish(record, folder)
    options = ["--to", "hub-folder", "--weights", str(folder / "w.safetensors"), "--record", str(path)]
    return path, record, [str(folder / "hub"), *options]


@pytest.mark.parametrize("wrong", ["record", "weights", "size", "random"])
def test_a_record_of_something_else_signs_no_model(tmp_path, capsys, wrong):
    path, record, command = of_a_run(tmp_path)
    says = f"the record of run {record.id} is of other weights"
    if wrong == "record":
        path.write_text(path.read_text().replace("81.31", "91.31"))
        says = f"{path} was edited or damaged"
    elif wrong == "weights":
        weights.save(tnt.TNT(compose(["scale=demo"]).model.network), tmp_path / "w.safetensors")
    elif wrong == "size":
        command += ["--size", "64"]
        says = "is of a network with image_size=48, and this one has image_size=64"
    else:
        command = [*command[:3], "--random-weights", *command[5:]]
        says = "random ones come from no run"
    assert main(command) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "hub").exists()


def test_the_card_holds_the_records_numbers_and_says_what_is_not_known(tmp_path):
    _, record, command = of_a_run(tmp_path)
    assert main(command) == 0
    card = (tmp_path / "hub" / "README.md").read_text()
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", card, flags=re.M))
    assert rows["top-1, moving average"] == "81.31"
    assert rows["top-1"] == f"{record.raw.top1:.6g}"
    assert rows["run"] == record.id
    assert rows["seed"] == "3"
    assert rows["git commit"] == record.commit
    assert rows["uncommitted changes"] == "no"
    assert rows["versions"] == "torch 2.15, timm 1.0"
    assert rows["hosts"] == "a\\|b, c d"
    assert rows["jobs"] == "none"
    assert rows["weights' SHA-256 when the run ended"] == record.weights_sha256
    assert "not known" not in card
    assert "science" not in rows
    assert card.startswith("---\nlibrary_name: timm\n")
