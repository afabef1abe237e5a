"""Requests to end: a signal sets a flag, and the trainer looks at the flag between two steps.

Python runs a signal handler between two bytecodes; a trainer that waits in a collective gets there late or
never. So the handlers here do nothing: the interpreter writes the signal's number into a descriptor at once,
and a thread reads it there. If the trainer does not end a step in time, another thread calls the
last resort: the scheduler is about to kill the job, and the run goes on from its last checkpoint.
"""

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

# What schedulers send before they kill (SIGUSR2 is submitit's default), and Ctrl-C.
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


class Interrupt:
    """Entered first thing in a run, before anything slow is imported: a signal during imports must not kill.

    Ctrl-C is such a request as well; the second one raises KeyboardInterrupt as usual.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None  # the first one
        self._arrived, self._settled = threading.Event(), threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        self._thread = threading.Thread(target=self._listen, name="interrupt", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.settle()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._theirs.close()  # ends the thread
        self._thread.join()
        self._ours.close()

    def __bool__(self) -> bool:
        """Whether this process was asked to end; the other ranks may not have been."""
        return self._arrived.is_set()

    def wait(self, seconds: float) -> bool:
        return self._arrived.wait(seconds)

    def settle(self) -> None:
        """The trainer has ended its step and handles the request: the last resort is not called any more."""
        self._settled.set()

    def otherwise(self, seconds: float, last_resort: Callable[[], None]) -> None:
        """Call `last_resort`, in a thread, if `settle` was not called within `seconds` after a signal."""

        def watch() -> None:
            self._arrived.wait()
            if not self._settled.wait(seconds):
                last_resort()

        threading.Thread(target=watch, name="last resort", daemon=True).start()

    def _listen(self) -> None:
        while numbers := self._ours.recv(64):
            for number in numbers:
                if self.received is None and number in SIGNALS:
                    self.received = signal.Signals(number)
                    self._arrived.set()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """There must be a handler for the interpreter to write to the descriptor; `_listen` sets the flag."""
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
