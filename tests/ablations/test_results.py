"""results/: what is committed there follows from its records, and its README names every field."""

import json
import re
from pathlib import Path

import pytest

from ablations import report
from pipeline.runs import records

ROOT = Path(__file__).parents[2]


def documented(heading: str) -> list[str]:
    """The names in the first column of a table of results/README.md."""
    section = (ROOT / "results" / "README.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, flags=re.M)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_the_record_is_documented_field_by_field(shelf):
    record = shelf.add("inner_heads", "4", 81.3)
    held = json.loads(records.record_path(shelf.folder, record.id).read_text())
    assert documented("A record") == list(held)
    text = (ROOT / "results" / "README.md").read_text()
    assert all(f"`{name}`" in text for name in [*held["raw"], *held["science"]])
    assert f"| `schema` | {records.SCHEMA};" in text


def test_the_csv_is_documented_column_by_column(shelf):
    report.main(["--records", str(shelf.folder), "--results", str(shelf.folder)])
    columns = (shelf.folder / "tables/table6.csv").read_text().split("\n")[0].split(",")
    assert sorted(documented("The tables")) == sorted(columns)


@pytest.mark.parametrize("scale", ["paper", "demo"])
def test_the_tables_that_are_committed_are_those_of_the_records(scale, tmp_path):
    """Else: python ablations/report.py (--scale demo), and commit results/."""
    report.main(["--records", str(ROOT / "results/shipped"), "--results", str(tmp_path), "--scale", scale])
    own = Path("tables", *([] if scale == "paper" else [scale]))
    kept = {path.name: path.read_bytes() for path in (ROOT / "results" / own).glob("*.*")}
    if kept or scale == "paper":
        assert kept == {path.name: path.read_bytes() for path in (tmp_path / own).glob("*.*")}
