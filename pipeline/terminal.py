"""What a person sees of long work: a bar or a table on a terminal, else a plain line every few seconds."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Literal, TextIO

from pipeline.errors import UserError
from tnt.untrusted.showing import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

LINE_EVERY = 5.0  # seconds
GAP = 2  # columns between two of a table
WHOLE = 14  # columns: a narrower cell, as an id, is never broken in two
UNWRAPPED = 10_000  # columns: what is not a terminal is not wrapped


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of images finished since the last call."""
    started, done = time.monotonic(), 0
    display = open_display(total, 0, LINE_EVERY, what)

    def advance(count: int) -> None:
        nonlocal done
        done += count
        rate = done / max(time.monotonic() - started, 1e-9)
        left = f", {clock((total - done) / rate)} left" if rate else ""
        display.show(done, f"{rate:,.0f}/s{left}")

    try:
        yield advance
    finally:
        display.close()
    seconds = time.monotonic() - started
    if seconds >= LINE_EVERY:
        display.say(f"{what}: {done:,} in {clock(seconds)}")


class Lines:
    """How far some work is, in plain lines."""

    def __init__(self, total: int, seconds: float, what: str) -> None:
        self._total, self._seconds, self._what = total, seconds, what
        self._said = time.monotonic()

    def show(self, step: int, text: str) -> None:
        """`text` says the rest."""
        now = time.monotonic()
        if now - self._said >= self._seconds:
            self._said = now
            self.say(f"{self._what} {step:,} of {self._total:,}  {text}")

    def say(self, text: str) -> None:
        """A line that stays."""
        print(shown(text), file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class Bar:
    """The same on a terminal."""

    def __init__(self, total: int, step: int, what: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        # No refreshing thread: worker processes are forked beside it.
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._task = self._bar.add_task(what, total=total, completed=step, text="")
        self._shown = 0.0
        self._bar.start()

    def show(self, step: int, text: str) -> None:
        self._bar.update(self._task, completed=step, text=text)
        now = time.monotonic()
        if now - self._shown > 0.1:
            self._shown = now
            self._bar.refresh()

    def say(self, text: str) -> None:
        self._bar.console.print(shown(text), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.refresh()
        self._bar.stop()


Display = Lines | Bar


def open_display(total: int, step: int, seconds: float, what: str = "step") -> Display:
    return Bar(total, step, what) if can_redraw(sys.stderr) else Lines(total, seconds, what)


def clock(seconds: float) -> str:
    whole = round(seconds)
    days, hours = divmod(whole // 3600, 24)
    if days > 1:
        return f"{days:,} days {hours} h"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError(f"{question} there is no terminal to ask at; yes=true answers yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def can_redraw(stream: TextIO) -> bool:
    """Whether it is a terminal whose lines can be written again."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def show_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], below: str = "", spare: Sequence[str] = ()
) -> None:
    """On standard output, once; on a narrow terminal without `spare` columns, the first of them first."""
    console = _console(sys.stdout)
    console.print(_table(head, rows, console.width, spare))
    if below:
        console.print(f"\n{_lines(below)}", markup=False, highlight=False, soft_wrap=True)


def live_table(stream: TextIO | None = None) -> closing["LiveTable"]:
    """Redrawn in place; on standard error unless another terminal is given."""
    return closing(LiveTable(_console(stream or sys.stderr)))


class LiveTable:
    def __init__(self, console: "Console") -> None:
        self._console, self._width = console, console.width
        self._live = self._begun()

    def draw(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], below: str = "", spare: Sequence[str] = ()
    ) -> None:
        from rich.console import Group
        from rich.text import Text

        width, height = self._console.size
        if width != self._width:  # the terminal has broken the old lines anew: nothing finds their begin
            self.close()
            self._console.clear()
            self._width, self._live = width, self._begun()
        free = height - 4 - sum(1 + len(line) // width for line in below.splitlines())
        if len(rows) > free > 0:
            below += f"\n{len(rows) - free} more rows need a higher window"
            rows = rows[:free]
        self._live.update(Group(_table(head, rows, width, spare), Text(f"\n{_lines(below)}")), refresh=True)

    def say(self, text: str) -> None:
        """A line that stays above the table."""
        self._console.print(shown(text), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def _begun(self) -> "Live":
        from rich.live import Live

        live = Live(console=self._console, auto_refresh=False, vertical_overflow="visible")
        live.start()
        return live


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    return Console(file=stream, width=None if can_redraw(stream) else _columns(stream))


def _lines(text: str) -> str:
    return "\n".join(map(shown, text.split("\n")))


def _columns(stream: TextIO) -> int:
    """What is no terminal is not wrapped; one that cannot redraw has a width all the same."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or UNWRAPPED
    except (OSError, ValueError):
        return UNWRAPPED


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int, spare: Sequence[str]) -> "Table":
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    widths = [max(map(cell_len, (name, *(shown(row[i]) for row in rows)))) for i, name in enumerate(head)]
    kept = list(range(len(head)))
    for name in spare:
        if sum(widths[i] + GAP for i in kept) - GAP > width and name in head:
            kept.remove(head.index(name))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), pad_edge=False, show_edge=False)
    for i in kept:
        numbers = all(not row[i] or row[i][0].isdigit() for row in rows)
        justify: Literal["left", "right"] = "right" if rows and numbers else "left"
        table.add_column(head[i], justify=justify, overflow="fold", no_wrap=widths[i] <= WHOLE)
    for row in rows:
        table.add_row(*(Text(shown(row[i])) for i in kept))
    return table
