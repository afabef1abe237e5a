"""The processes that render: one that imports what is needed, and the workers that it forks.

They share what that one imported, torch above all. They take tasks from one common socket, whoever
is free first, and keep nothing between them. Signals that are meant for the trainer do not stop them (a
scheduler signals every process of a job, and the trainer still needs batches to reach its next step); they
end when the trainer closes its end of the sockets or is gone.
"""

import contextlib
import ctypes
import gc
import os
import pickle
import select
import signal
import socket
import traceback
from dataclasses import dataclass
from typing import NoReturn

from pipeline.data.loading.buffers import COUNT, SAMPLE, TICKET, Buffers
from pipeline.data.loading.rendering import Failure, Renderer, Rendering, Task, render_nothing

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1
# glibc's mallopt: what is freed goes back to the kernel, page by page, only beyond these bytes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, KEPT = -1, -3, 32 << 20
LARGEST_MESSAGE = 1 << 16
LOOK_FOR_PARENT = 1000  # milliseconds


@dataclass(frozen=True)
class Setup:
    """What the trainer hands to its workers when they start."""

    rendering: Rendering
    workers: int
    buffers: int  # how many
    batch_shape: tuple[int, ...]


@dataclass(frozen=True)
class Rendered:
    """A task that is done: images that could not be used, or the stack trace of an error."""

    ticket: int
    worker: int
    failures: tuple[Failure, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Ended:
    """A worker that has ended; its status as os.waitpid gives it."""

    worker: int
    pid: int
    status: int


def main(
    control_file: int, tasks_file: int, results_file: int, buffers_file: int, setup_file: int
) -> NoReturn:
    """Started by pool.ProcessPool, which blocks the signals until they can be ignored."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED)
    parent = os.getppid()
    control, tasks, results = (
        socket.socket(fileno=file) for file in (control_file, tasks_file, results_file)
    )
    with os.fdopen(setup_file, "rb") as stream:
        setup: Setup = pickle.load(stream)
    prepare(setup.rendering)
    forker, pids = os.getpid(), []
    for index in range(setup.workers):
        pid = os.fork()
        if not pid:
            control.close()
            _die_with(forker)
            work(index, setup, tasks, results, buffers_file)
        pids.append(pid)
    tasks.close()
    results.close()
    _watch(control, pids, parent)


def work(
    index: int, setup: Setup, tasks: socket.socket, results: socket.socket, buffers_file: int
) -> NoReturn:
    buffers = Buffers(setup.buffers, setup.batch_shape, setup.workers, buffers_file)
    renderer, line = Renderer(setup.rendering), buffers.board[index]

    def began(sample: int) -> None:
        line[SAMPLE] = sample
        line[COUNT] += 1

    while message := tasks.recv(LARGEST_MESSAGE):
        task = Task.unpacked(message)
        line[SAMPLE], line[TICKET] = task.images["sample"][0], task.ticket + 1
        try:
            done = Rendered(task.ticket, index, tuple(renderer.render(task, buffers.batch(task.slot), began)))
            line[TICKET] = 0
        except Exception:  # told to the trainer, which raises it
            done = Rendered(task.ticket, index, fault=traceback.format_exc()[-LARGEST_MESSAGE // 4 :])
        try:
            results.send(pickle.dumps(done))
        except (BrokenPipeError, ConnectionResetError):
            break
    os._exit(0)


def prepare(rendering: Rendering) -> None:
    """Import what rendering needs, so that forked workers share it; one thread each, as they are many."""
    from pipeline.data.augmentation.randaugment import use_one_thread

    use_one_thread()
    _keep_memory()
    render_nothing(rendering)
    gc.collect()
    gc.freeze()


def _keep_memory() -> None:
    """Keep freed memory for the next image: asking the kernel for it each time costs a tenth of a view."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's; other C libraries have rules of their own
        for name in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            libc.mallopt(name, KEPT)


def _watch(control: socket.socket, pids: list[int], parent: int) -> NoReturn:
    """Tell the trainer of workers that end; end all of them when it is gone or closes the socket."""
    living = {os.pidfd_open(pid): (index, pid) for index, pid in enumerate(pids)}
    poll = select.poll()
    for file in (control.fileno(), *living):
        poll.register(file, select.POLLIN)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        control.send(pickle.dumps(pids))
        while os.getppid() == parent:
            ready = [file for file, _ in poll.poll(LOOK_FOR_PARENT)]
            if control.fileno() in ready:
                break
            for file in ready:
                poll.unregister(file)
                index, pid = living.pop(file)
                control.send(pickle.dumps(Ended(index, pid, os.waitpid(pid, 0)[1])))
    for file in living:
        signal.pidfd_send_signal(file, signal.SIGKILL)
    os._exit(0)


def _die_with(parent: int) -> None:
    """Even when this process is stopped or stuck in a read: the kernel ends it with its parent."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL):
        raise OSError(ctypes.get_errno(), "prctl cannot tie a worker to its parent")
    if os.getppid() != parent:
        os._exit(0)
