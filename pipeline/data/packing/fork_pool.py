"""Processes that share a list of tasks: for work that is heavy, long, and must end when it is told to.

Workers are forked, so what the work needs is there without being sent. They end by themselves when the parent
is killed, and a worker that dies is an error with the task's name instead of a wait without end.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from pipeline.errors import UserError, WorkFailed

Advance = Callable[[int], None]
Work = Callable[[Any, Advance], Any]


def cores() -> int:
    """The cores that this process may use, which on a shared node are not all of them."""
    return len(os.sched_getaffinity(0))


class Crew:
    """`work(task, advance)` in several processes; `advance(n)` reports n finished images while it runs.

    Start it before any thread is started: it forks.
    """

    def __init__(self, work: Work, workers: int) -> None:
        context = multiprocessing.get_context("fork")
        self.connections: list[Connection] = []
        self.processes: list[multiprocessing.process.BaseProcess] = []
        for _ in range(max(workers, 1)):
            ours, theirs = context.Pipe()
            inherited = [*self.connections, ours]
            process = context.Process(target=_labour, args=(theirs, inherited, work), daemon=True)
            process.start()
            theirs.close()
            self.connections.append(ours)
            self.processes.append(process)

    def run(self, tasks: Sequence[Any], advance: Advance) -> Iterator[tuple[int, Any]]:
        """(index of the task, its result), in the order in which they are finished."""
        waiting = iter(enumerate(tasks))
        busy: dict[Connection, int] = {}
        for connection in self.connections:
            _hand_out(connection, waiting, busy)
        while busy:
            ready = wait(list(busy))
            for connection in [one for one in busy if one in ready]:
                try:
                    what, value = connection.recv()
                except (EOFError, ConnectionResetError):
                    raise self._lost(connection, tasks[busy[connection]]) from None
                if what == "advance":
                    advance(value)
                elif what == "done":
                    finished = busy.pop(connection)
                    _hand_out(connection, waiting, busy)
                    yield finished, value
                elif what == "failed":
                    raise value
                else:
                    raise RuntimeError(f"a worker failed:\n{value}")

    def _lost(self, connection: Connection, task: Any) -> WorkFailed:
        process = self.processes[self.connections.index(connection)]
        process.join()
        code = process.exitcode or 0
        how = f"signal {-code}, out of memory?" if code < 0 else f"status {code}"
        return WorkFailed(f"a worker process died ({how}) during {task}; run the command again")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self.connections:
            connection.close()
        for process in self.processes:
            if kind is not None:
                process.terminate()
            process.join()


def _hand_out(
    connection: Connection, waiting: Iterator[tuple[int, Any]], busy: dict[Connection, int]
) -> None:
    for index, task in waiting:
        busy[connection] = index
        with suppress(BrokenPipeError):  # a dead worker: the end of its messages is found next
            connection.send(task)
        return


def _labour(connection: Connection, inherited: list[Connection], work: Work) -> None:
    # Ctrl-C reaches the whole group; the parent decides. Copies of the parent's ends would hide its death.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for copy in inherited:
        copy.close()
    try:
        while True:
            task = connection.recv()
            connection.send(_outcome(work, task, lambda count: connection.send(("advance", count))))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone, or has no more work


def _outcome(work: Work, task: Any, advance: Advance) -> tuple[str, Any]:
    try:
        return "done", work(task, advance)
    except UserError as error:
        return "failed", error
    except (BrokenPipeError, ConnectionResetError):
        raise
    except OSError as error:  # a full disk, a lost file system, missing rights
        return "failed", WorkFailed(f"{error.strerror or error}: {error.filename or task}")
    except Exception:
        return "broken", traceback.format_exc()
