"""Whatever a name holds, no command shows it as it is: property tests."""

import csv
import io
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ablations.reporting.text.files import LATEX, _cell
from pipeline.data.images.decode import ImageKind, StoredImage
from pipeline.data.packing.describe import describe
from pipeline.data.packing.shard_rows import RowCollector, join_shards
from pipeline.data.packing.sources.folder import unique_key
from pipeline.errors import UserError, command
from pipeline.runs.log import error_line, tail
from pipeline.terminal import Lines, show_table
from tnt.commandline import print_table, run
from tnt.model_card import _cell as card_cell
from tnt.predict import WRITERS, ClassScore, Prediction
from tnt.untrusted.showing import shown

HOSTILE = ["\x1b[2J", "\x07", "\n", "\r", "\x9b", "\u202e", "\u2066", "\0", "\u2028", "\udcff"]
SPECIAL = ['"', ",", "|", "<b>", "\\", "%", "}"]
NAMES = st.lists(
    st.sampled_from([*HOSTILE, *SPECIAL]) | st.text(min_size=1, max_size=4), min_size=1, max_size=6
).map("".join)
FEW = settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@FEW
@given(name=NAMES)
def test_what_is_shown_is_one_harmless_line_and_tells_names_apart(name):
    assert shown(name).isprintable()
    assert shown(name) == name if name.isprintable() else shown(name) != name
    assert shown(shown(name)) == shown(name)


@FEW
@given(name=NAMES)
def test_errors(name, capsys):
    for status, work in ((2, UserError(name)), (1, OSError(5, "no", name))):

        def fail(argv, error=work):
            raise error

        with pytest.raises(SystemExit) as left:
            command(fail, [])
        assert left.value.code == status

    def wrong():
        raise ValueError(name)

    assert run("tnt", wrong) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 3
    assert harmless(printed)


@FEW
@given(name=NAMES)
def test_tables_and_lines_on_a_terminal(name, capsys):
    show_table(["name"], [[name]])
    print_table(["name"], [[name]])
    Lines(1, 0, "images").say(name)
    printed = capsys.readouterr()
    assert harmless(printed.out)
    assert harmless(printed.err)


@FEW
@given(name=NAMES)
def test_predictions_in_every_format(name, capsys):
    found = [Prediction(name, (ClassScore(0, name, 0.5),))]
    for write in WRITERS.values():
        write(found)
        printed = capsys.readouterr().out
        assert harmless(printed)
    assert next(iter(csv.reader(io.StringIO(as_csv(found, capsys)))))[0] == "image"
    WRITERS["json"](found)
    assert json.loads(capsys.readouterr().out)[0]["image"] == name  # exactly, for programs


def as_csv(found, capsys) -> str:
    WRITERS["csv"](found)
    return capsys.readouterr().out


@FEW
@given(name=NAMES)
def test_the_description_of_a_set(name):
    rows = RowCollector()
    rows.add(b"k", 0, 0, StoredImage(b"x", ImageKind.JPEG, 1, 1))
    manifest = join_shards("set", name, [name], [rows.finish("a.tar", 10, "")])
    assert harmless(describe([manifest]))


@FEW
@given(name=NAMES)
def test_logs(name, tmp_path):
    error_line(tmp_path, name)
    (tmp_path / "printed").write_bytes(name.encode(errors="surrogateescape") + b"\n")
    assert harmless((tmp_path / "log.txt").read_text())
    assert all(line.isprintable() for line in tail(tmp_path / "printed"))


@FEW
@given(name=NAMES)
def test_markdown_html_and_latex(name):
    """The reports put each name through `shown` first."""
    for cell in (card_cell(name), _cell(shown(name))):
        assert "\n" not in cell
        assert "<" not in cell
        assert "|" not in cell.replace("\\|", "")
    assert not set(shown(name).translate(LATEX).replace(r"\textbackslash{}", "")) & set("~^")


@FEW
@given(name=NAMES)
@example(name="../../etc/passwd")
def test_names_of_files_in_a_shard(name):
    key = unique_key(f"class/{name}.jpg", set())
    assert not any(ord(letter) < 32 for letter in key)
    assert len(key.encode(errors="surrogateescape")) <= 90
