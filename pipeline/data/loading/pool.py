"""Rendering by a pool of worker processes, or in the trainer's own process."""

import contextlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable

from pipeline.data.loading.buffers import COUNT, SAMPLE, TICKET, Buffers
from pipeline.data.loading.rendering import Renderer, Rendering, Task
from pipeline.data.loading.worker import IGNORED, LARGEST_MESSAGE, Ended, Rendered, Setup
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


class WorkerLost(WorkFailed):
    """A worker died, hangs, or raised an error: the run ends, and can be resumed from its last checkpoint."""


class InlineQueue:
    """Without worker processes: a task is done when it is collected."""

    def __init__(self, rendering: Rendering, buffers: Buffers) -> None:
        self._renderer, self._buffers = Renderer(rendering), buffers
        self._tasks: deque[Task] = deque()

    def submit(self, task: Task) -> None:
        self._tasks.append(task)

    def collect(self) -> Rendered:
        task = self._tasks.popleft()
        failures = self._renderer.render(task, self._buffers.batch(task.slot), lambda sample: None)
        return Rendered(task.ticket, 0, tuple(failures))

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
        self.pids: list[int] = []
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
        (self._control, self._tasks, self._results), theirs = zip(*pairs, strict=True)
        self._tasks.setblocking(False)
        self._tasks.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
        self._process = _start(
            Setup(rendering, buffers.workers, buffers.count, buffers.batch_shape), theirs, buffers
        )
        for end in theirs:
            end.close()

    def submit(self, task: Task) -> None:
        message = task.packed()
        assert len(message) <= LARGEST_MESSAGE, f"a task of {len(message)} bytes"
        self._backlog.append(message)
        self._send()

    def collect(self) -> Rendered:
        """The next task done, whichever it is."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._results, select.POLLIN)
        while True:
            self._send()
            begun = time.monotonic()
            ready = [file for file, _ in poll.poll(1000 * min(TICK, self._timeout / 4))]
            self._note_wait(min(time.monotonic() - begun, TICK))
            if self._control.fileno() in ready:
                self._receive_control()
            if self._results.fileno() in ready:
                if not (message := self._results.recv(LARGEST_MESSAGE)):
                    self._receive_control()  # this socket has ended; the control socket says why
                    continue
                done: Rendered = pickle.loads(message)
                self._idle = 0.0
                if done.fault:
                    raise self._lost(done.worker, f"met a fault:\n{done.fault}")
                return done
            self._find_hung()

    def close(self) -> None:
        """End all workers at once; nothing of theirs must be saved."""
        for end in (self._control, self._tasks, self._results):
            end.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel ends its workers with it
            self._process.wait()

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._backlog:
                try:
                    self._tasks.send(self._backlog[0])
                except (BrokenPipeError, ConnectionResetError):
                    return  # the control socket will say who died
                self._backlog.popleft()

    def _receive_control(self) -> None:
        """First the workers' process ids, then a message for each that ends; it closes with the last."""
        message = self._control.recv(LARGEST_MESSAGE)
        if not message:
            status = self._process.wait()
            raise WorkerLost(f"the loader's workers ended together ({_ending(status)}); stderr may say more")
        heard: list[int] | Ended = pickle.loads(message)
        if isinstance(heard, Ended):
            raise self._lost(heard.worker, _ending(os.waitstatus_to_exitcode(heard.status)))
        self.pids, self._idle = heard, 0.0

    def _note_wait(self, seconds: float) -> None:
        board, self._idle = self._buffers.board.copy(), self._idle + seconds
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
            raise WorkerLost(f"no worker has taken a task for {self._idle:.0f} s; workers: {self.pids}")

    def _lost(self, worker: int, what: str) -> WorkerLost:
        line = self._buffers.board[worker]
        busy = f" over {self._name(int(line[SAMPLE]))}" if line[TICKET] else ""
        pid = f" (process {self.pids[worker]})" if self.pids else ""
        return WorkerLost(f"worker {worker}{pid} {what.rstrip()}{busy}")


def _start(setup: Setup, ends: tuple[socket.socket, ...], buffers: Buffers) -> subprocess.Popen:
    assert buffers.file is not None, "workers need buffers that they can share"
    files = [end.fileno() for end in ends] + [buffers.file]
    with tempfile.TemporaryFile() as stream:
        pickle.dump(setup, stream)
        stream.flush()
        stream.seek(0)
        files.append(stream.fileno())
        code = f"from pipeline.data.loading.worker import main; main({', '.join(map(str, files))})"
        paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)}
        # Blocked until the child ignores them: a signal to the whole job must not end it while it starts.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-c", code],  # -P: nothing from the working directory
                pass_fds=files,
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    hint = ": out of memory?" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
