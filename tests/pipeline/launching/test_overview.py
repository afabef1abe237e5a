"""Tables of runs on terminals of every kind: what matters of a run is never left out or broken in two."""

import io
import re
import sys

import pytest

from pipeline.config.overrides import compose
from pipeline.launching import overview
from pipeline.launching.plan import PlannedRun
from pipeline.launching.status import RunStatus
from pipeline.terminal import live_table, show_table

IDS = ["354dda817500", "39775bdc29cd", "5e904c23f102"]
MATTERS = ("352 of 1,100", "32", "1,234", "0:04:50")  # step, percentage, rate, time left


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(scope="module")
def table():
    config = compose(["scale=demo"])
    runs = [PlannedRun(config, id, (f"position_encoding/{cell}",)) for cell, id in enumerate(IDS)]
    where = "job 1234567_89 (ReqNodeNotAvail, UnavailableNodes:node[001-064])"
    found = [
        RunStatus(runs[0], "running", 352, 1100, 8.0, 1234.0, 86.39, 290.0, None, 2, where),
        RunStatus(runs[1], "broken", 100, 1100, error="device is out of memory: use a smaller micro-batch"),
        RunStatus(runs[2], "pending", where=where),
    ]
    return overview.status_table(found)


def shown(monkeypatch, table, columns, term):
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", str(columns))
    show_table(*table)
    return screen.getvalue()


@pytest.mark.parametrize("columns", [80, 120])
def test_a_narrow_terminal_shows_what_matters_and_breaks_no_id(monkeypatch, table, columns):
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown(monkeypatch, table, columns, "xterm")).splitlines()
    rows = lines[: lines.index("")]
    assert all(len(line) <= columns for line in rows)
    [running] = [line for line in rows if IDS[0] in line]
    assert all(word in running for word in MATTERS)
    assert all(any(line.startswith(id) for line in rows) for id in IDS)
    said = "\n".join(lines[len(rows) :])
    assert "1 running, 1 pending, 1 broken; about 0:11:56 left of all" in said
    assert f"position_encoding/1 ({IDS[1]}): device is out of memory: use a smaller micro-batch" in said


def test_a_dumb_terminal_gets_whole_ids_and_no_control_characters(monkeypatch, table):
    text = shown(monkeypatch, table, 80, "dumb")
    assert all(id in text for id in IDS)
    assert "\x1b" not in text


def test_a_resized_terminal_is_cleared_before_the_table_is_drawn_anew(monkeypatch, table):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    screen = Screen()
    with live_table(screen) as live:
        live.draw(*table)
        live.draw(*table)
        assert "\x1b[2J" not in screen.getvalue()
        monkeypatch.setattr(type(live._console), "size", property(lambda console: console_size(80)))
        live.draw(*table)
        after = screen.getvalue().partition("\x1b[2J")[2]
    assert IDS[0] in after


def test_more_rows_than_the_window_holds_are_counted(monkeypatch, table):
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    with live_table(screen) as live:
        monkeypatch.setattr(type(live._console), "size", property(lambda console: console_size(120, 12)))
        head, rows, below, spare = table
        live.draw(head, rows * 10, below, spare)
    assert "more rows need a higher window" in screen.getvalue()


def console_size(width, height=40):
    from rich.console import ConsoleDimensions

    return ConsoleDimensions(width, height)
