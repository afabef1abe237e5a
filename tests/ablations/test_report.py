"""The report's command: what it prints, what it writes, and what it refuses."""

import csv
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ablations import spec
from ablations.reporting import sizes as counting
from ablations.reporting.settings import CODE_PRINTED, setting_tables
from ablations.spec import Cell
from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.runs import records
from pipeline.runs.records import Measures
from tests.ablations.recorded import Shelf, run

ROOT = Path(__file__).parents[2]


def files(shelf: Shelf, folder: str = "tables") -> dict[str, bytes]:
    found = shelf.folder.parent / folder
    return {path.name: path.read_bytes() for path in found.iterdir() if path.is_file()}


def test_it_prints_the_papers_value_ours_the_difference_and_a_verdict(some, capsys):
    assert run(some, "--table", "6") == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "8 23.77 5.22 81.1 80.20 ± 0.29 (n=1) −0.90 ± 0.40 differs (s of other rows)" in lines
    assert "4 − 8 top-1 +0.2 +1.10 ± 0.31 0.002 confirmed (s of other rows)" in lines
    assert "81.30 ± 0.17 (n=3)" in out
    assert "[recipe.epochs=100]" in out
    assert "Table 5" not in out


def test_it_writes_each_table_as_markdown_latex_and_csv(some):
    assert run(some) == 0
    names = set(files(some))
    for table in ("table4", "table5", "table6", "table6--recipe.epochs=100", "table7", "table8", "se"):
        assert {f"{table}.md", f"{table}.tex", f"{table}.csv"} <= names
    assert {"table1.md", "table2.md", "table3.tex"} <= names
    markdown = files(some)["table6.md"].decode()
    assert "| 4 | 23.77 | 5.22 | 81.3 | 81.30 ± 0.17 (n=3) | +0.00 ± 0.32 | equivalent |" in markdown
    assert "| 4 − 1 | top-1 | +0.3 | +0.25 ± 0.24 | 0.046 | confirmed |" in markdown
    latex = files(some)["table6.tex"].decode()
    assert r"\toprule" in latex
    assert r"81.30 $\pm$ 0.17 (n=3)" in latex
    lines = list(csv.DictReader(files(some)["table6.csv"].decode().splitlines()))
    top1 = {line["row"]: line for line in lines if line["column"] == "top1"}
    assert (top1["4"]["mean"], top1["4"]["n"], top1["4"]["paper"]) == ("81.3", "3", "81.3")
    assert top1["2"]["mean"] == ""
    assert len(top1["4"]["runs"].split()) == 3


def test_latex_is_ascii_and_its_braces_match(some):
    run(some)
    for name, data in files(some).items():
        if name.endswith(".tex"):
            body = "\n".join(line for line in data.decode().splitlines() if not line.startswith("%"))
            assert body.isascii(), name
            assert body.count("{") == body.count("}")
            for tabular in body.split(r"\begin{tabular}")[1:]:
                rows = [line for line in tabular.splitlines() if line.endswith(r"\\")]
                assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1


def test_the_same_records_give_the_same_bytes(some):
    run(some)
    first = files(some)
    run(some)
    assert files(some) == first
    for name in first:
        (some.folder.parent / "tables" / name).unlink()
    run(some)
    assert files(some) == first


def test_files_of_a_table_that_is_no_more_go(some):
    run(some)
    for record in records.read_all(some.folder)[0]:
        if record.science["recipe"]["epochs"] == 100:
            records.record_path(some.folder, record.id).unlink()
    run(some)
    assert not [name for name in files(some) if "epochs" in name]


def test_the_demos_tables_stand_apart(shelf):
    shelf.add("inner_heads", "4", 97.0, overrides=["scale=demo"])
    assert run(shelf, "--scale", "demo") == 0
    assert "97.00 ± 1.28 (n=1)".encode() in files(shelf, "tables/demo")["table6.md"]
    assert run(shelf) == 0
    assert b"97" not in files(shelf)["table6.md"]


def test_tables_1_to_3_agree_with_the_configuration(shelf, capsys):
    for number in ("1", "2", "3"):
        assert run(shelf, "--table", number) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith(("  yes", "  no"))]
        papers = [line for line in lines if not line.startswith("authors' code")]
        assert len(papers) >= 8
        assert all(line.endswith("  yes") for line in papers)


def test_table_3_shows_what_differs_from_the_authors_code_and_what_the_official_recipe_takes_back():
    """Both are deviations that docs/deviations.md names; bf16 and the last epoch stay."""

    def differing(*overrides: str) -> set[str]:
        *_, table3 = setting_tables(compose(overrides), [], counting.Sizes({}))
        return {one.name for one in table3.settings if one.row == "authors' code" and not one.agrees}

    assert differing("recipe=official") == {"precision", "weights reported"}
    assert differing() == set(CODE_PRINTED)


def test_a_setting_that_is_not_the_papers_is_said():
    config = compose(["recipe.epochs=301"])
    *_, table3 = setting_tables(config, [], counting.Sizes({}))
    (epochs,) = [one for one in table3.settings if one.name == "epochs"]
    assert (epochs.paper, epochs.ours, epochs.agrees) == ("300", "301", False)


def test_missing_lists_what_lacks_seeds(some, capsys):
    assert run(some, "--missing", "--table", "inner_heads", "--seeds", "0,1,2") == 0
    assert capsys.readouterr().out.splitlines() == [
        "inner_heads/1  seeds 2",
        "inner_heads/2  seeds 0, 1, 2",
        "inner_heads/8  seeds 1, 2",
        "3 cells lack runs at scale paper",
    ]


def test_missing_feeds_launch(some, capsys):
    assert run(some, "--missing", "--launch-args", "--table", "6") == 0
    assert capsys.readouterr().out == "ablation=inner_heads cells=2 seeds=0\n"
    assert run(some, "--missing", "--launch-args", "--scale", "demo") == 0
    assert capsys.readouterr().out == "ablation=all seeds=0 scale=demo\n"
    assert run(some, "--missing", "--launch-args", "--scale", "demo", "--table", "control") == 0
    assert capsys.readouterr().out == "ablation=control cells=with,without seeds=0\n"


def test_where_nothing_is_missing_launch_is_given_nothing_to_start(some, capsys):
    some.add("inner_heads", "2", 81.3)
    assert run(some, "--missing", "--launch-args", "--table", "6") == 0
    out, err = capsys.readouterr()
    assert out == "ablation=all action=plan\n"
    assert "nothing is missing" in err


def test_verify_finds_weights_and_answers_that_are_not_the_records(shelf, capsys, tmp_path):
    good = shelf.add("inner_heads", "4", 81.3, weights_sha256=hashlib.sha256(b"weights").hexdigest())
    bad = shelf.add("inner_heads", "2", 81.3)
    shelf.add("inner_heads", "1", 81.0)
    other = shelf.add("inner_heads", "8", 81.0, answers_sha256="a" * 64)
    answers = shelf.folder.parent / "answers" / f"{other.id}.npz"
    answers.parent.mkdir()
    answers.write_bytes(b"answers")
    for record in (good, bad):
        (tmp_path / "runs" / record.id).mkdir(parents=True)
        (tmp_path / "runs" / record.id / "model.safetensors").write_bytes(b"weights")
    assert run(shelf, "--verify", "--runs", str(tmp_path / "runs")) == 1
    out = capsys.readouterr().out
    assert f"weights in {tmp_path}/runs/: 1 match their records, 1 do not, 2 were not found" in out
    assert f"answers in {shelf.folder.parent}/answers/: 0 match their records, 1 do not" in out
    assert bad.id in out
    assert other.id in out
    assert good.id not in out


def test_strict_fails_where_a_record_does_not_count_and_the_record_is_named(some, capsys):
    assert run(some, "--strict", "--table", "6") == 0
    (some.folder / "0123456789ab.json").write_text("{")
    capsys.readouterr()
    assert run(some, "--table", "6") == 0
    assert "0123456789ab.json is damaged" in capsys.readouterr().err
    assert run(some, "--strict", "--table", "6") == 1


def test_strict_fails_where_a_control_does_not_come_out_as_it_must(shelf):
    shelf.add("control", "with", 99.0, raw=Measures(99.0, 100.0, 0.1, 360))
    assert run(shelf, "--strict", "--scale", "demo") == 0
    shelf.add("control", "without", 50.0, raw=Measures(50.0, 100.0, 0.1, 360))
    assert run(shelf, "--scale", "demo") == 0
    assert run(shelf, "--strict", "--scale", "demo") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--table", "9"], "unknown table '9'"),
        (["--scale", "papr"], "did you mean 'paper'"),
        (["--nonsense"], "unrecognized arguments: --nonsense; see"),
        (["--tabel", "6"], "unrecognized arguments: --tabel 6 (did you mean --table?)"),
        (["--launch-args"], "--launch-args goes with --missing"),
        (["--missing", "--seeds", "a,b"], "is no list of whole numbers"),
    ],
)
def test_a_mistake_is_one_line(shelf, arguments, said):
    with pytest.raises(UserError) as caught:
        run(shelf, *arguments)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_record_holds_cannot_break_out_of_a_table(shelf, capsys):
    shelf.add("inner_heads", "1", 81.0, commit="<script>|\n\\input{x}\x1b[31m")
    shelf.add("inner_heads", "2", 81.0)
    assert run(shelf, "--table", "6") == 0
    assert "\x1b" not in capsys.readouterr().out
    assert b"<script>" not in files(shelf)["table6.md"]
    for line in files(shelf)["table6.tex"].decode().splitlines():
        assert not line.startswith("\\input")
    run(shelf, "--why", "table6/1")
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_login_node_gets_its_report_without_torch(some):
    code = (
        "import sys; from ablations import report; report.main(sys.argv[1:]); "
        "print([m for m in ('torch', 'deepspeed', 'timm', 'matplotlib', 'submitit') if m in sys.modules])"
    )
    results = some.folder.parent
    command = [sys.executable, "-c", code, "--records", some.folder, "--results", results]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert not done.stderr


def test_cells_are_known_by_one_name_each():
    for name, ablation in spec.load("all").items():
        columns = [row.column for row in ablation.rows if isinstance(row, Cell)]
        assert all(columns) or not any(columns), name
