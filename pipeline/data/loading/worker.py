"""The processes that render: one that imports what is needed, and the workers that it forks.

They share what that one imported, torch above all. They take tasks from one common socket, whoever
is free first, and keep nothing between them. Signals that are meant for the trainer do not stop them (a
scheduler signals every process of a job, and the trainer still needs batches to reach its next step). When
one of them ends, or the trainer does, the first process ends and with it all of them.
"""

import contextlib
import ctypes
import gc
import os
import pickle
import signal
import socket
import sys
import traceback
from typing import NoReturn

from pipeline.data.loading.buffers import COUNT, ENDED, PROCESS, SAMPLE, TICKET, Buffers
from pipeline.data.loading.rendering import Rendered, Renderer, Rendering, Task, render_nothing
from pipeline.processes.device import keep_memory

IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1
KEPT = 32 << 20  # bytes of freed memory
LARGEST_MESSAGE = 1 << 16
LOOK_FOR_PARENT = 1  # seconds


def main(file: int, trainer: int) -> NoReturn:
    """Started by pool.ProcessPool, which blocks the signals until they can be ignored.

    `file` is the socket's number; what to render, and into which buffers, is pickled at stdin.
    """
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGCHLD})  # waited for below
    rendering, buffers = pickle.load(sys.stdin.buffer)
    prepare(rendering)
    forker, pids = os.getpid(), []
    with socket.socket(fileno=file) as tasks:
        for worker in range(buffers.workers):
            pid = os.fork()
            if not pid:
                _die_with(forker)
                work(worker, rendering, buffers, tasks)
            buffers.board[worker, PROCESS] = pid
            pids.append(pid)
    while os.getppid() == trainer:
        signal.sigtimedwait({signal.SIGCHLD}, LOOK_FOR_PARENT)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            buffers.board[pids.index(pid), ENDED] = status + 1
            break
    os._exit(0)  # the kernel ends the workers that are left


def work(worker: int, rendering: Rendering, buffers: Buffers, tasks: socket.socket) -> NoReturn:
    renderer, line = Renderer(rendering), buffers.board[worker]

    def began(sample: int) -> None:
        line[SAMPLE] = sample
        line[COUNT] += 1

    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the trainer is gone
        while message := tasks.recv(LARGEST_MESSAGE):
            task = Task.unpacked(message)
            line[SAMPLE], line[TICKET] = task.images["sample"][0], task.ticket + 1
            try:
                done = Rendered(task.ticket, worker, renderer.render(task, buffers.batch(task.buffer), began))
                line[TICKET] = 0
            except Exception:  # told to the trainer, which raises it
                done = Rendered(task.ticket, worker, fault=traceback.format_exc()[-LARGEST_MESSAGE // 4 :])
            tasks.send(pickle.dumps(done))
    os._exit(0)


def prepare(rendering: Rendering) -> None:
    """Import what rendering needs, so that forked workers share it; one thread each, as they are many."""
    from pipeline.data.augmentation.randaugment import use_one_thread

    use_one_thread()
    keep_memory(KEPT)
    render_nothing(rendering)
    gc.collect()
    gc.freeze()


def _die_with(parent: int) -> None:
    """Even when this process is stopped or stuck in a read: the kernel ends it with its parent."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL):
        raise OSError(ctypes.get_errno(), "prctl cannot tie a worker to its parent")
    if os.getppid() != parent:
        os._exit(0)
