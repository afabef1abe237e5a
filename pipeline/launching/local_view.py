"""What a person sees while runs go on here: a line for each on a terminal, redrawn; else one now and then."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pipeline.launching.local import Work, name
from pipeline.launching.plan import Wanted
from pipeline.launching.status import Standing, standing
from pipeline.terminal import clock, live_table

HEAD = ("run", "step", "epoch", "images/s", "top-1", "left")
REDRAW_EVERY = 1.0  # seconds

Tell = Callable[[str], None]
Show = Callable[[Work], None]


@contextmanager
def watched(runs: Sequence[Wanted], seconds: float) -> Iterator[tuple[Tell, Show]]:
    """What to call with events, and with the work as it stands; `seconds` lie between plain lines."""
    if not sys.stderr.isatty():
        yield _say, _rarely(seconds, lambda work: _lines(runs, work))
        return
    with live_table() as screen:

        def draw(work: Work) -> None:
            screen.draw(HEAD, [_row(run, at) for run, at in _at_work(runs, work)], _counts(runs, work))

        yield screen.say, _rarely(REDRAW_EVERY, draw)


def _rarely(seconds: float, show: Show) -> Show:
    shown = time.monotonic()

    def sometimes(work: Work) -> None:
        nonlocal shown
        if time.monotonic() - shown >= seconds:
            shown = time.monotonic()
            show(work)

    return sometimes


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _lines(runs: Sequence[Wanted], work: Work) -> None:
    for run, at in _at_work(runs, work):
        step, epoch, rate, top1, left = _row(run, at)[1:6]
        parts = [f"step {step}" if step else "", f"epoch {epoch}" if epoch else ""]
        parts += [f"{rate} images/s" if rate else "", f"top-1 {top1} %" if top1 else ""]
        parts += [f"{left} left" if left else ""]
        _say(f"{name(run)}: {', '.join(part for part in parts if part) or 'starting'}")
    _say(_counts(runs, work))


def _at_work(runs: Sequence[Wanted], work: Work) -> list[tuple[Wanted, Standing]]:
    return [(run, standing(run)) for run in runs if run.id in work.active or run.id in work.elsewhere]


def _row(run: Wanted, at: Standing) -> list[str]:
    return [
        name(run),
        f"{at.step:,} of {at.steps:,}" if at.steps else "",
        "" if at.epoch is None else f"{at.epoch:g}",
        "" if at.images_per_second is None else f"{at.images_per_second:,.0f}",
        "" if at.top1 is None else f"{at.top1:.2f}",
        clock(at.seconds_left) if at.seconds_left else "",
    ]


def _counts(runs: Sequence[Wanted], work: Work) -> str:
    waiting = len(runs) - len(work.done) - len(work.failed) - len(work.active) - len(work.elsewhere)
    counts = {
        "done": len(work.done),
        "at work": len(work.active),
        "elsewhere": len(work.elsewhere),
        "failed": len(work.failed),
        "waiting": waiting,
    }
    return f"of {len(runs)} runs: " + ", ".join(f"{count} {word}" for word, count in counts.items() if count)
