"""Files that nobody can open for a while, as on a file system that lost its server."""

import fcntl
import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path


class Leases:
    """Whoever opens one of these files waits until they are let go, or 45 s; `asked` says that one does."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.asked = threading.Event()
        signal.signal(signal.SIGIO, lambda number, frame: self.asked.set())
        self._files = [os.open(path, os.O_RDWR) for path in paths]
        for file in self._files:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)

    def let_go(self) -> None:
        while self._files:
            os.close(self._files.pop())
