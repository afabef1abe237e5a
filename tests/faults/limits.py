"""How a hostile file must end: one line, soon, without the memory that it claims."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import command
from tnt.commandline import run

SECONDS = 10
BYTES = 1_000_000_000


@contextmanager
def bounded() -> Iterator[None]:
    """Fails where the block takes longer, or more memory, than a hostile file may cost."""

    def late(number, frame):
        raise TimeoutError(f"not done in {SECONDS} s")

    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    held, before = _peak(), signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert _peak() < held + BYTES


def _peak() -> int:
    """The most bytes of memory that this process has had."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) * 1024


def tnt_refusal(work: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """The same of a command of `tnt`, whose status is 2."""
    capsys.readouterr()
    with bounded():
        assert run("tnt", lambda: work() and 0) == 2
    return _line(capsys.readouterr().err, "tnt: ")


def refusal(work: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """The line in which a command refuses; its status is 1 or 2."""
    capsys.readouterr()
    with bounded(), pytest.raises(SystemExit) as left:
        command(lambda argv: work() and None, [])
    printed = capsys.readouterr()
    assert left.value.code in (1, 2), printed
    return _line(printed.err, "error: ")


def _line(printed: str, start: str) -> str:
    assert printed.startswith(start)
    assert printed.count("\n") == 1
    assert printed[:-1].isprintable()
    assert len(printed) < 10_000
    return printed
