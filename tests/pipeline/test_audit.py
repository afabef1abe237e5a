"""A real short run, parts of which are replayed; and what was changed of it afterwards, which is found."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ablations import report
from pipeline import audit
from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.digits import digits
from pipeline.errors import UserError
from pipeline.runs import audits, records
from pipeline.runs.checkpoints import MANIFEST, published
from tests.pipeline.ranks import ROOT, environment, finish, start_ranks
from tests.pipeline.small_runs import STEPS, Place, end_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("audit")]
EVERY_STEP = "engine.checkpoint_minutes=1e-9"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two epochs in bf16, of which four checkpoints are kept beside the last."""
    folder = tmp_path_factory.mktemp("finished")
    make(digits(), folder / "digits", Packing(workers=1))
    place = Place(folder, folder / "digits")
    place.train("precision=bf16", "engine.keep_for_audit=4", EVERY_STEP)
    assert place.steps() == [1, 7, 14, 21, STEPS - 1, STEPS]
    return place


class Copy:
    """Of the run and its record, to be changed."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.folder, self.id = folder, place.directory.name
        for name in ("runs", "records"):
            shutil.copytree(place.folder / name, folder / name)
        self.directory = folder / "runs" / self.id
        self.record = records.record_path(folder / "records", self.id)

    def arguments(self, *more: str) -> list[str]:
        return [
            f"run={self.id}",
            *(f"paths.{name}={self.folder / name}" for name in ("runs", "records")),
            *more,
        ]

    def audit(self, *more: str) -> str:
        """In a process of its own, as the run was; what it said on stderr."""
        [process] = start_ranks(1, [ROOT / "pipeline/audit.py", *self.arguments(*more)])
        code, err = end_of(process)
        assert code == (1 if "error:" in err else 0), err
        return err

    @property
    def audits(self) -> list[audits.Audit]:
        return audits.read(audits.path_of(self.folder / "records", self.id))

    def edit_record(self, **changes) -> None:
        """With a hash that fits."""
        values = json.loads(self.record.read_text())
        del values["sha256"]
        values |= changes
        self.record.write_text(json.dumps(values | {"sha256": records.digest(values)}))

    def edit_losses(self, path: Path) -> None:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        changed = [row | ({"loss": row["loss"] * (1 + 1e-9)} if "loss" in row else {}) for row in lines]
        path.write_text("".join(json.dumps(row) + "\n" for row in changed))


@pytest.fixture
def copy(finished, tmp_path):
    return Copy(finished, tmp_path)


def test_a_part_of_a_run_is_replayed_to_the_last_digit_and_the_report_says_so(copy, capsys):
    folders = ["--records", str(copy.folder / "records"), "--runs", str(copy.folder / "runs")]
    folders += ["--results", str(copy.folder), "--scale", "demo"]
    finish(start_ranks(1, [ROOT / "ablations/report.py", *folders, "--audit", copy.id]))
    [found] = copy.audits
    assert (found.same_layout, found.loss_gap, found.grad_norm_gap, found.fault) == (True, 0, 0, "")
    assert found.compared == found.up_to - found.after
    assert (found.after, found.up_to) in [(1, 7), (7, 14), (14, 21), (21, 27), (27, 28)]
    assert report.main([*folders, "--why", copy.id]) == 0
    assert f"steps {found.after + 1} to {found.up_to}, {found.compared} agree to the last digit" in (
        capsys.readouterr().out
    )


def test_another_layout_agrees_within_rounding_and_says_so(copy):
    copy.audit("engine.micro_batch=24")
    [found] = copy.audits
    assert (found.same_layout, found.fault) == (False, "")
    assert 0 < found.loss_gap < audit.ROUNDING["loss"] / 2
    assert 0 < found.grad_norm_gap < audit.ROUNDING["grad_norm"] / 2


def test_losses_that_were_changed_are_found(copy):
    """In the ninth digit: in the run's own file, and in that of each checkpoint, with hashes that fit."""
    copy.edit_losses(copy.directory / "metrics.jsonl")
    assert "is not what its record says" in copy.audit()
    for _, path in published(copy.directory / "checkpoints"):
        copy.edit_losses(path / "metrics.jsonl")
        manifest = json.loads((path / MANIFEST).read_text())
        content = (path / "metrics.jsonl").read_bytes()
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest["files"]["metrics.jsonl"] = entry
        (path / MANIFEST).write_text(json.dumps(manifest, sort_keys=True, separators=(",", ":")) + "\n")
    assert "is not what its record says" in copy.audit()
    first, second = copy.audits
    assert first.fault == f"metrics.jsonl is not as the checkpoint of step {first.up_to} holds it"
    assert second.fault == f"loss of step {second.after + 1} is off by 1e-09"


def test_a_record_that_was_changed_is_found(copy):
    kept = copy.record.read_text()
    copy.record.write_text(kept.replace('"attempts": 1', '"attempts": 2'))
    with pytest.raises(UserError, match="was edited or damaged"):
        audit.main(copy.arguments())
    copy.record.write_text(kept)
    copy.edit_record(raw=json.loads(kept)["raw"] | {"top1": 90.0})
    assert "is not what its record says" in copy.audit()
    assert copy.audits[0].fault == "the record's top1 is not that of metrics.jsonl"


def test_what_cannot_be_replayed_is_refused(copy):
    with pytest.raises(UserError, match="there is no such run"):
        audit.main(["run=0123456789ab"])
    with pytest.raises(UserError, match="say which run"):
        audit.main([])
    with pytest.raises(UserError, match="leave out what changes numbers"):
        audit.main(copy.arguments("recipe.lr=1e-4"))
    for _, path in sorted(published(copy.directory / "checkpoints"))[1:]:
        shutil.rmtree(path)
    with pytest.raises(UserError, match="holds 1 sound checkpoint;"):
        audit.main(copy.arguments())
    copy.edit_record(commit="c" * 40)
    with pytest.raises(UserError, match=f"git checkout {'c' * 40}"):
        audit.main(copy.arguments())


def test_two_audits_at_one_moment_are_both_kept(tmp_path):
    """In processes of their own, as they are; without the lock most of them are lost."""
    one = (
        "import sys; from pathlib import Path; from pipeline.runs.audits import Audit, add\n"
        "for n in range(20):\n"
        "    found = Audit('a' * 64, 0, n, 1, True, 0.0, 0.0, '', sys.argv[2], 'h', 't', 'c', False)\n"
        "    add(Path(sys.argv[1]), found)"
    )
    path = tmp_path / "audits" / f"{'a' * 12}.json"
    command = [sys.executable, "-c", one, str(path)]
    begun = [subprocess.Popen([*command, who], env=environment()) for who in ("one", "other")]
    assert [process.wait(timeout=120) for process in begun] == [0, 0]
    told = [(each.by, each.up_to) for each in audits.read(path)]
    assert sorted(told) == [(who, n) for who in ("one", "other") for n in range(20)]
