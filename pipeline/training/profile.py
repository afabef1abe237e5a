"""engine.profile=10-20: where the time of these steps of a start goes, on this machine.

profile.json.gz   a trace for chrome://tracing or ui.perfetto.dev
profile.txt       the operators that took most of it
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import profiler

from pipeline.runs.directory import PROFILE, TRACE

ROWS = 40  # of the table


@contextmanager
def profiled(steps: str, directory: Path, rank: int) -> Iterator[Callable[[], None]]:
    """A function to call after each step; rank 0's steps are traced, if there are `steps`."""
    if not steps or rank:
        yield lambda: None
        return
    first, last = map(int, steps.split("-"))

    def write(found: profiler.profile) -> None:
        found.export_chrome_trace(str(directory / TRACE))
        table = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=ROWS)
        (directory / PROFILE).write_text(table)

    warming = min(1, first - 1)
    schedule = profiler.schedule(wait=first - 1 - warming, warmup=warming, active=last - first + 1, repeat=1)
    with profiler.profile(schedule=schedule, on_trace_ready=write) as traced:
        yield traced.step
