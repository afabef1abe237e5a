import io
import sys
import time

from pipeline.terminal import LINE_EVERY, progress


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_without_a_terminal_a_line_every_few_seconds_tells_rate_and_time_left(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with progress(1000, "packing cats") as advance:
        for _ in range(10):
            clock.now += LINE_EVERY / 2.5
            advance(50)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "packing cats 150 of 1,000  25/s, 0:00:34 left"
    assert lines[-1] == "packing cats: 500 in 0:00:20"
    assert len(lines) == 4


def test_short_work_says_nothing_without_a_terminal(capsys):
    with progress(10, "packing") as advance:
        advance(10)
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar_with_count_and_rate(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with progress(100, "packing") as advance:
        for _ in range(4):
            advance(25)
    assert "100/100" in screen.getvalue()
    assert "/s" in screen.getvalue()
