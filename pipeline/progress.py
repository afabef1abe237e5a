"""How far long work has come: a bar with rate and time left on a terminal, else a line every few seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINE_EVERY = 5.0  # seconds


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of images finished since the last call."""
    with (_bar if sys.stderr.isatty() else _lines)(total, what) as advance:
        yield advance


@contextmanager
def _bar(total: int, what: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    # No refreshing thread: worker processes are forked beside it.
    with Progress(
        *columns, console=Console(stderr=True), auto_refresh=False, speed_estimate_period=60
    ) as bar:
        task = bar.add_task(what, total=total, rate="")
        shown, done = 0.0, 0

        def advance(count: int) -> None:
            nonlocal shown, done
            done += count
            now = time.monotonic()
            rate = f"{done / max(now - started, 1e-9):,.0f}/s"
            bar.update(task, advance=count, rate=rate)
            if now - shown > 0.1 or done >= total:
                shown = now
                bar.refresh()

        yield advance


@contextmanager
def _lines(total: int, what: str) -> Iterator[Callable[[int], None]]:
    started = time.monotonic()
    said, done = started, 0

    def advance(count: int) -> None:
        nonlocal said, done
        done += count
        now = time.monotonic()
        if now - said >= LINE_EVERY:
            said = now
            rate = done / (now - started)
            left = (total - done) / rate
            print(f"{what}: {done:,} of {total:,}, {rate:,.0f}/s, {_clock(left)} left", file=sys.stderr)

    yield advance
    if said > started:
        print(f"{what}: {done:,} in {_clock(time.monotonic() - started)}", file=sys.stderr)


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
