"""What a person sees of a run: a bar on a terminal, else a plain line every so often."""

import sys
import time
from typing import Protocol


class Display(Protocol):
    def show(self, step: int, text: str) -> None:
        """How far the run is; `text` says the rest."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None: ...


def open_display(total: int, step: int, seconds: float) -> Display:
    return Bar(total, step) if sys.stderr.isatty() else Lines(total, seconds)


class Lines:
    def __init__(self, total: int, seconds: float) -> None:
        self._total, self._seconds = total, seconds
        self._said = time.monotonic()

    def show(self, step: int, text: str) -> None:
        now = time.monotonic()
        if now - self._said >= self._seconds:
            self._said = now
            self.say(f"step {step:,} of {self._total:,}  {text}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class Bar:
    def __init__(self, total: int, step: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        # No refreshing thread: worker processes are forked beside it.
        self._bar = Progress(
            TextColumn("step"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=total, completed=step, text="")
        self._shown = 0.0
        self._bar.start()

    def show(self, step: int, text: str) -> None:
        self._bar.update(self._task, completed=step, text=text)
        now = time.monotonic()
        if now - self._shown > 0.1:
            self._shown = now
            self._bar.refresh()

    def say(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.refresh()
        self._bar.stop()


def clock(seconds: float) -> str:
    whole = round(seconds)
    days, hours = divmod(whole // 3600, 24)
    if days > 1:
        return f"{days:,} days {hours} h"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
