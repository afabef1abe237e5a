"""Forked worker processes that share a list of tasks.

Workers are forked, so the work function and its data need not be sent to them. They end when the parent is
killed, and a worker that dies raises an error with the task's name; multiprocessing.Pool would wait for ever.
"""

import multiprocessing
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


class ForkPool:
    """Calls `work(task, advance)` in several processes; it calls `advance(n)` when n more images are done.

    Create it before any thread is started, because it forks.
    """

    def __init__(self, work: Work, workers: int) -> None:
        context = multiprocessing.get_context("fork")
        self.connections: list[Connection] = []
        self.processes: list[multiprocessing.process.BaseProcess] = []
        for _ in range(max(workers, 1)):
            ours, theirs = context.Pipe()
            inherited = [*self.connections, ours]
            process = context.Process(target=_worker, args=(theirs, inherited, work), daemon=True)
            process.start()
            theirs.close()
            self.connections.append(ours)
            self.processes.append(process)

    def run(self, tasks: Sequence[Any], advance: Advance) -> Iterator[tuple[int, Any]]:
        """(index of the task, its result), in the order in which tasks finish."""
        waiting = iter(enumerate(tasks))
        busy: dict[Connection, int] = {}
        for connection in self.connections:
            _send_next(connection, waiting, busy)
        while busy:
            ready = wait(list(busy))
            for connection in [one for one in busy if one in ready]:
                try:
                    what, value = connection.recv()
                except (EOFError, ConnectionResetError):
                    raise self._died(connection, tasks[busy[connection]]) from None
                if what == "advance":
                    advance(value)
                elif what == "done":
                    finished = busy.pop(connection)
                    _send_next(connection, waiting, busy)
                    yield finished, value
                elif what == "failed":
                    raise value
                else:
                    raise RuntimeError(f"a worker failed:\n{value}")

    def _died(self, connection: Connection, task: Any) -> WorkFailed:
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


def _send_next(
    connection: Connection, waiting: Iterator[tuple[int, Any]], busy: dict[Connection, int]
) -> None:
    for index, task in waiting:
        busy[connection] = index
        with suppress(BrokenPipeError):  # the worker has died; reading from it finds that next
            connection.send(task)
        return


def _worker(connection: Connection, inherited: list[Connection], work: Work) -> None:
    # Ctrl-C reaches all processes; only the parent acts on it. Without closing these copies of the parent's
    # connections, workers would not notice its death.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for copy in inherited:
        copy.close()
    try:
        while True:
            task = connection.recv()
            connection.send(_outcome(work, task, lambda count: connection.send(("advance", count))))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has died or has no more tasks


def _outcome(work: Work, task: Any, advance: Advance) -> tuple[str, Any]:
    try:
        return "done", work(task, advance)
    except UserError as error:
        return "failed", error
    except (BrokenPipeError, ConnectionResetError):
        raise
    except OSError as error:  # such as a full disk or missing rights
        return "failed", WorkFailed(f"{error.strerror or error}: {error.filename or task}")
    except Exception:
        return "broken", traceback.format_exc()
