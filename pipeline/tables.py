"""Tables for a person at a terminal: printed once, or redrawn in place while something goes on."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

ENDLESS = 10_000  # columns: what is not a terminal is not wrapped


class Redrawn(Protocol):
    def draw(self, head: Sequence[str], rows: Sequence[Sequence[str]], below: str = "") -> None: ...

    def say(self, text: str) -> None:
        """A line that stays above the table."""


def show(head: Sequence[str], rows: Sequence[Sequence[str]], below: str = "") -> None:
    """On standard output."""
    console = _console(sys.stdout)
    console.print(_table(head, rows))
    if below:
        console.print(f"\n{below}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def redrawn(stream: Any = None) -> Iterator[Redrawn]:
    """On standard error unless said, which must be a terminal."""
    from rich.live import Live

    with Live(
        console=_console(stream or sys.stderr), auto_refresh=False, vertical_overflow="visible"
    ) as live:
        yield _Drawing(live)


class _Drawing:
    def __init__(self, live: Any) -> None:
        self._live = live

    def draw(self, head: Sequence[str], rows: Sequence[Sequence[str]], below: str = "") -> None:
        from rich.console import Group
        from rich.text import Text

        self._live.update(Group(_table(head, rows), Text(below)), refresh=True)

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _console(stream: Any) -> Any:
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else ENDLESS)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, name in enumerate(head):
        numbers = all(not row[index] or row[index][0].isdigit() for row in rows)
        table.add_column(name, justify="right" if rows and numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_printable(value)) for value in row))
    return table


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "�" for character in text)
