"""`--why`: from a cell back to its runs, and to the command that makes them again."""

import shlex

import pytest

from ablations import spec
from pipeline.config.identity import science
from pipeline.errors import UserError
from pipeline.runs import records
from tests.ablations.recorded import run


def test_why_leads_back_to_the_run_and_to_the_command_that_makes_it_again(some, capsys):
    assert run(some, "--why", "table6/8") == 0
    out = capsys.readouterr().out
    (record,) = [r for r in records.read_all(some.folder)[0] if r.science["model"]["inner_heads"] == 8]
    for said in (record.id, record.commit, record.fingerprint, record.weights_sha256, "4711_3", "node17"):
        assert said in out
    assert "model.inner_heads=8" in out
    assert "paper 81.1, ours 80.20 ± 0.29 (n=1) on 50,000 images, Δ −0.90 ± 0.40" in out
    assert "top-1, 8 − 1: paper +0.1, ours −0.85 ± 0.33, opposite (s of other rows)" in out
    assert run(some, "--why", "inner_heads/8") == 0
    assert capsys.readouterr().out == out
    assert run(some, "--why", record.id) == 0
    assert record.id in capsys.readouterr().out


def again(out: str) -> list[str]:
    (line,) = [line for line in out.splitlines() if line.strip().startswith("again")]
    return shlex.split(line.split(maxsplit=1)[1])


def test_the_command_asks_for_the_very_run(some, capsys):
    """Its science, composed from the command's words, is that of the record."""
    for record in records.read_all(some.folder)[0]:
        run(some, "--why", record.id)
        for out in capsys.readouterr().out.split("\n\nTable "):
            held = [block for block in out.split("\n\n") if record.id in block]
            words = dict(word.split("=", 1) for word in again(held[0])[2:])
            ablation = spec.load(words.pop("ablation"))
            (each,) = ablation.values()
            cell, seed = each.cell(words.pop("cells")), words.pop("seeds")
            rest = [f"{name}={value}" for name, value in words.items()]
            assert science(spec.composed(each, cell, [*rest, f"seed={seed}"])) == record.science


def test_why_of_a_cell_that_was_not_run_says_what_would_run_it(shelf, capsys):
    assert run(shelf, "--why", "table5/none", "--scale", "demo") == 0
    out = capsys.readouterr().out
    command = "python pipeline/launch.py ablation=position_encoding cells=none seeds=0 scale=demo"
    assert f"to run it  {command}" in out
    assert "model.patch_position=false model.word_position=false" in out


def test_why_knows_runs_of_no_table_and_networks_that_nobody_runs(shelf, capsys):
    record = shelf.add("inner_heads", "4", 79.2, overrides=["recipe.epochs=100"], asked=False)
    assert run(shelf, "--why", record.id) == 0
    out = capsys.readouterr().out
    assert f"run {record.id} belongs to no table of scale paper" in out
    assert record.weights_sha256 in out
    assert run(shelf, "--why", "table4/ResNet-50") == 0
    assert "paper 76.2, reported" in capsys.readouterr().out


def test_why_refuses_what_is_no_cell_with_the_nearest(shelf):
    with pytest.raises(UserError, match=r"unknown cell 'table6/16' \(did you mean 'table6/1'\?\)"):
        run(shelf, "--why", "table6/16")


def test_a_run_s_id_is_explained_at_the_scale_that_its_record_knows(shelf, capsys):
    record = shelf.add("inner_heads", "4", 96.0, overrides=["scale=demo"])
    assert run(shelf, "--why", record.id) == 0
    assert "Table 6. Heads of the inner transformer (scale=demo): 4" in capsys.readouterr().out
