"""Rendering by a pool of worker processes, or in the trainer's own process."""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import wait

from pipeline.data.loading.buffers import COUNT, ENDED, PROCESS, SAMPLE, TICKET, Buffers
from pipeline.data.loading.rendering import Rendered, Renderer, Rendering, Task
from pipeline.data.loading.worker import IGNORED, LARGEST_MESSAGE
from pipeline.errors import UserError, WorkFailed
from pipeline.files import PACKAGE

# One thread each, no device, and freed memory goes back to the system.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "MALLOC_ARENA_MAX": "1",
}
START = 120.0  # seconds that importing may take on a busy file system
TICK = 1.0  # seconds; a wait counts no more than this at a time, so that a suspended job is not a hung one


class InlineQueue:
    """Without worker processes: a task is done when it is collected."""

    def __init__(self, rendering: Rendering, buffers: Buffers) -> None:
        self._renderer, self._buffers = Renderer(rendering), buffers
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def collect(self) -> Rendered:
        task = self._tasks.popleft()
        failures = self._renderer.render(task, self._buffers.batch(task.buffer), lambda sample: None)
        return Rendered(task.ticket, 0, failures)

    def close(self) -> None:
        self._renderer.close()


class ProcessPool:
    def __init__(
        self, rendering: Rendering, buffers: Buffers, name: Callable[[int], str], timeout: float
    ) -> None:
        """`name` says which sample of which shard a worker was lost over."""
        if not sys.platform.startswith("linux"):
            raise UserError(f"worker processes need Linux, this is {sys.platform}; set workers to 0")
        self._buffers, self._name, self._timeout = buffers, name, timeout
        self._backlog: deque[bytes] = deque()
        self._waited = [0.0] * buffers.workers  # per worker, since its line of the board last changed
        self._idle = 0.0  # since a task was last done by anyone
        self._board = buffers.board.copy()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        with theirs:
            self._process = _start(rendering, buffers, theirs.fileno())

    @property
    def pids(self) -> list[int]:
        """The workers' processes; none of them until they have started."""
        return [pid for pid in self._buffers.board[:, PROCESS].tolist() if pid]

    def submit(self, task: Task) -> None:
        message = task.packed()
        assert len(message) <= LARGEST_MESSAGE, f"a task of {len(message)} bytes"
        self._backlog.append(message)
        self._send()

    def collect(self) -> Rendered:
        """The next task done, whichever it is."""
        while True:
            self._send()
            begun = time.monotonic()
            ready = wait([self._socket], min(TICK, self._timeout / 4))
            self._note_wait(min(time.monotonic() - begun, TICK))
            if not ready:
                self._find_hung()
                continue
            try:
                message = self._socket.recv(LARGEST_MESSAGE)
            except ConnectionResetError:  # they have ended with tasks that nobody took
                message = b""
            if not message:
                raise self._ended()
            done: Rendered = pickle.loads(message)
            self._idle = 0.0
            if done.fault:
                raise self._lost(done.worker, f"met a fault:\n{done.fault}")
            return done

    def close(self) -> None:
        """End all workers at once; nothing of theirs must be saved."""
        self._process.kill()  # the kernel ends the workers with it
        self._process.wait()
        self._socket.close()

    def _send(self) -> None:
        # A broken pipe is told when the socket is read, with the worker that broke it.
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._backlog:
                self._socket.send(self._backlog[0])
                self._backlog.popleft()

    def _ended(self) -> WorkFailed:
        """All workers have ended: the process that forked them has noted which was the first."""
        status = self._process.wait()
        for worker, end in enumerate(self._buffers.board[:, ENDED].tolist()):
            if end:
                return self._lost(worker, _ending(os.waitstatus_to_exitcode(end - 1)))
        return WorkFailed(f"the loader's workers ended together ({_ending(status)}); stderr may say more")

    def _note_wait(self, seconds: float) -> None:
        board = self._buffers.board.copy()
        starting = (board[:, PROCESS] != self._board[:, PROCESS]).any()
        self._idle = 0.0 if starting else self._idle + seconds
        for worker, (now, before) in enumerate(zip(board, self._board, strict=True)):
            resting = not now[TICKET] or now[COUNT] != before[COUNT] or now[TICKET] != before[TICKET]
            self._waited[worker] = 0.0 if resting else self._waited[worker] + seconds
        self._board = board

    def _find_hung(self) -> None:
        worker = max(range(len(self._waited)), key=self._waited.__getitem__)
        if self._waited[worker] >= self._timeout:
            raise self._lost(worker, f"has hung for {self._waited[worker]:.0f} s")
        resting = not self._board[:, TICKET].any()
        if resting and self._idle >= (self._timeout if self.pids else max(self._timeout, START)):
            raise WorkFailed(f"no worker has taken a task for {self._idle:.0f} s; workers: {self.pids}")

    def _lost(self, worker: int, what: str) -> WorkFailed:
        line = self._buffers.board[worker]
        busy = f" over {self._name(int(line[SAMPLE]))}" if line[TICKET] else ""
        return WorkFailed(f"worker {worker} (process {line[PROCESS]}) {what.rstrip()}{busy}")


def _start(rendering: Rendering, buffers: Buffers, file: int) -> subprocess.Popen:
    assert buffers.file is not None, "workers need buffers that they can share"
    code = f"from pipeline.data.loading.worker import main; main({file}, {os.getpid()})"
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Blocked until the child ignores them: a signal to the whole job must not end it while it starts.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
    try:
        with tempfile.TemporaryFile() as setup:
            pickle.dump((rendering, buffers), setup)
            setup.seek(0)
            return subprocess.Popen(
                [sys.executable, "-P", "-c", code],  # -P: nothing from the working directory
                pass_fds=[file, buffers.file],
                env=os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)},
                stdin=setup,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    hint = ": out of memory?" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
