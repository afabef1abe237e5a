"""Forked processes, one for each task of a list, a few at a time.

They are forked, so the work function and its data need not be sent to them. They end when the parent is
killed, and one that dies raises an error with its task's name; multiprocessing.Pool would wait for ever.
"""

import contextlib
import itertools
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

from pipeline.errors import UserError, WorkFailed
from pipeline.processes.device import cores

Advance = Callable[[int], None]
Work = Callable[[Any, Advance], Any]


def run_forked(work: Work, tasks: Sequence[Any], workers: int, advance: Advance) -> list[Any]:
    """`work(task, advance)` of every task, `workers` (0: one per core) at a time; the results in their order.

    `work` calls `advance(n)` when n more images are done. No thread may run beside it, because it forks.
    """
    context = multiprocessing.get_context("fork")
    waiting = iter(enumerate(tasks))
    running: dict[Connection, tuple[int, ForkProcess]] = {}
    results: dict[int, Any] = {}
    try:
        while True:
            for index, task in itertools.islice(waiting, (workers or cores()) - len(running)):
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_run, args=(theirs, [*running, ours], work, task), daemon=True
                )
                process.start()
                theirs.close()
                running[ours] = index, process
            if not running:
                return [results[index] for index in range(len(tasks))]
            ready = wait(list(running))
            for connection in [one for one in running if one in ready]:
                index, process = running[connection]
                try:
                    what, value = connection.recv()
                except EOFError:
                    raise _died(process, tasks[index]) from None
                if what == "advance":
                    advance(value)
                elif what == "done":
                    results[index] = value
                    del running[connection]
                    connection.close()
                    process.join()
                elif what == "failed":
                    raise value
                else:
                    raise RuntimeError(f"a worker failed:\n{value}")
    finally:
        for connection, (_, process) in running.items():
            connection.close()
            process.terminate()
            process.join()


def _died(process: ForkProcess, task: Any) -> WorkFailed:
    process.join()
    code = process.exitcode or 0
    how = f"signal {-code}, out of memory?" if code < 0 else f"status {code}"
    return WorkFailed(f"a worker process died ({how}) during {task}; run the command again")


def _run(connection: Connection, inherited: list[Connection], work: Work, task: Any) -> None:
    # Ctrl-C reaches all processes; only the parent acts on it. Without closing these copies of the parent's
    # connections, nobody would notice its death.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for copy in inherited:
        copy.close()
    try:
        outcome: tuple[str, Any] = "done", work(task, lambda count: connection.send(("advance", count)))
    except UserError as error:
        outcome = "failed", error
    except BrokenPipeError:
        return  # the parent has died
    except OSError as error:  # such as a full disk or missing rights
        outcome = "failed", WorkFailed(f"{error.strerror or error}: {error.filename or task}")
    except Exception:
        outcome = "broken", traceback.format_exc()
    with contextlib.suppress(BrokenPipeError):
        connection.send(outcome)
