"""What the report says of runs that were audited."""

import dataclasses

import pytest

from ablations import report
from pipeline.files import sha256
from pipeline.runs import audits
from pipeline.runs.audits import Audit
from pipeline.runs.records import record_path


@pytest.fixture
def told(shelf):
    """Two runs of a cell, the first with an audit."""
    first, _ = (shelf.add("inner_heads", "4", 81.3, seed) for seed in range(2))
    said = Audit(
        record_sha256=sha256(record_path(shelf.folder, first.id)),
        after=1000,
        up_to=1250,
        compared=5,
        same_layout=True,
        loss_gap=0.0,
        grad_norm_gap=0.0,
        fault="",
        by="ann",
        host="node17",
        time="2026-02-02T00:00:00Z",
        commit=first.commit,
        dirty=False,
    )
    path = audits.path_of(shelf.folder, first.id)
    audits.publish(path, [said])
    return first, said, path


@pytest.fixture
def run(shelf, capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        where = ["--records", str(shelf.folder), "--results", str(shelf.folder.parent)]
        code = report.main([*where, *arguments])
        return code, *capsys.readouterr()

    return run


def test_a_cell_says_how_many_of_its_runs_were_audited(told, run, shelf):
    code, out, err = run("--table", "6", "--strict")
    assert (code, err) == (0, "")
    assert "(n=2, 1 audited)" in out
    assert "n=2, 1 audited" in (shelf.folder.parent / "tables" / "table6.tex").read_text()
    why = "steps 1,001 to 1,250, 5 agree to the last digit (ann, node17, 2026-02-02T00:00:00Z)"
    assert f"audited   {why}" in run("--why", "table6/4")[1]


def test_an_audit_that_found_another_run_is_no_praise(told, run):
    first, said, path = told
    audits.publish(
        path, [said, dataclasses.replace(said, fault="loss of step 1003 is off by 0.2", loss_gap=0.2)]
    )
    code, out, err = run("--table", "6", "--strict")
    assert code == 1
    assert (
        f"the audit of {first.id}: steps 1,001 to 1,250, does not agree: loss of step 1003 is off by 0.2"
        in err
    )
    assert "(n=2)" in out


def test_an_audit_counts_for_the_record_that_it_is_about(told, run):
    _, said, path = told
    audits.publish(path, [dataclasses.replace(said, record_sha256="0" * 64)])
    assert "(n=2)" in run("--table", "6")[1]


def test_an_audit_that_was_edited_does_not_count_and_is_named(told, run):
    path = told[2]
    path.write_text(path.read_text().replace('"compared": 5', '"compared": 250'))
    _, out, err = run("--table", "6")
    assert "(n=2)" in out
    assert f"{path} was edited or damaged" in err


def test_a_cell_without_runs_cannot_be_audited(told, run):
    with pytest.raises(report.UserError, match="table6/8 has no runs yet"):
        run("--audit", "table6/8")
    with pytest.raises(report.UserError, match="table9/4"):
        run("--audit", "table9/4")
