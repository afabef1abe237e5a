"""Ranks that keep an eye on each other, so that a run with a lost rank ends soon and can be started again.

A collective waits for a frozen peer until its time-out, and NCCL for a dead one as well; time-outs must be
long, since a rank may rightly be busy for minutes. So a thread of every rank tells rank 0 each second that
its process is alive, and rank 0 tells them. A connection that closes without a word is a dead process;
silence is a frozen one. Either way everybody leaves at once, without unwinding: the main thread may never
come back from where it is.
"""

import contextlib
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn, Self

from pipeline.errors import UserError
from pipeline.processes.ranks import Ranks

BEAT = 1.0  # seconds
GRACE = 5  # beats for an error that all ranks raise to be raised by all of them
MEETING = 60.0  # seconds for the ranks to connect
LOST = 75  # exit status: a temporary failure, start it again
ALIVE, BYE, FAILED = b"alive", b"bye", b"failed"


def leave(reason: str) -> NoReturn:
    print(f"error: {reason}; starting the run again continues it", file=sys.stderr, flush=True)
    os._exit(LOST)


class Vigil:
    """Entered by all ranks alike. A rank that leaves the block by an error takes the others with it."""

    def __init__(self, ranks: Ranks, silence: float, leave: Callable[[str], None] = leave) -> None:
        self.ranks, self.silence, self._leave = ranks, silence, leave
        self._peers: dict[int, socket.socket] = {}
        self._heard: dict[int, float] = {}
        self._doubted: dict[int, int] = {}  # beats since they said that they failed
        self._rest: dict[int, bytes] = {}
        self._done = threading.Event()

    def __enter__(self) -> Self:
        if self.ranks.world > 1:
            self._meet()
            self._thread = threading.Thread(target=self._watch, name="vigil", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.ranks.world == 1:
            return
        if error is not None and not isinstance(error, UserError | KeyboardInterrupt):
            # Most likely a collective that missed a peer: then the thread is about to learn which one.
            self._thread.join(GRACE * BEAT)
        self._done.set()
        self._thread.join()
        for peer in list(self._peers):
            self._send(peer, FAILED if error is not None else BYE)
            self._forget(peer)

    def _meet(self) -> None:
        if self.ranks.rank:
            port, token = self.ranks.share(None)
            connection = socket.create_connection((self.ranks.place.master, port), timeout=MEETING)
            connection.sendall(f"{token} {self.ranks.rank}\n".encode())
            self._add(0, connection)
            return
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        with socket.create_server(("", 0), family=family, dualstack_ipv6=dual) as server:
            token = secrets.token_hex(16)
            self.ranks.share((server.getsockname()[1], token))
            server.settimeout(MEETING)
            while len(self._peers) < self.ranks.world - 1:
                connection, _ = server.accept()
                connection.settimeout(MEETING)
                with contextlib.suppress(OSError, ValueError):
                    said, rank = connection.makefile("rb").readline(80).decode().split()
                    if secrets.compare_digest(said, token):
                        self._add(int(rank), connection)
                        continue
                connection.close()

    def _add(self, rank: int, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._peers[rank], self._heard[rank], self._rest[rank] = connection, time.monotonic(), b""

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._peers.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            before = time.monotonic()
            while (self._peers or self._doubted) and not self._done.is_set():
                for rank in list(self._peers):
                    self._send(rank, ALIVE)
                while (left := before + BEAT - time.monotonic()) > 0 and not self._done.is_set():
                    for key, _ in selector.select(left):
                        if not self._listen(key.data):
                            selector.unregister(key.fileobj)
                            self._forget(key.data)
                now = time.monotonic()
                if now - before > self.silence / 2:
                    # This process was the one asleep: a suspended machine, a stopped job.
                    self._heard = dict.fromkeys(self._heard, now)
                before = now
                self._judge(now)

    def _listen(self, rank: int) -> bool:
        """Take in what a peer says; False where it has nothing more to say."""
        try:
            content = self._peers[rank].recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            content = b""
        if not content:
            self._end(f"rank {rank} is gone")
            return False
        self._heard[rank] = time.monotonic()
        *lines, self._rest[rank] = (self._rest[rank] + content).split(b"\n")
        for line in lines:
            if line == BYE:
                return False
            if line == FAILED:
                self._doubted[rank] = 0
                return False
            if line != ALIVE:
                self._end(line.decode(errors="replace"))
        return True

    def _judge(self, now: float) -> None:
        for rank in self._doubted:
            self._doubted[rank] += 1  # not seconds: in a process that was held up, its own error was too
            if self._doubted[rank] > GRACE:
                self._end(f"rank {rank} failed")
        for rank, heard in self._heard.items():
            if now - heard > self.silence:
                self._end(f"rank {rank} has given no sign of life for {self.silence:g} s")

    def _end(self, reason: str) -> None:
        """Rank 0 tells the others, who know only that rank 0 is about to be gone."""
        for rank in list(self._peers):
            self._send(rank, reason.encode())
        self._leave(reason)

    def _send(self, rank: int, line: bytes) -> None:
        with contextlib.suppress(OSError):  # full: frozen; closed: `_listen` finds out
            self._peers[rank].send(line + b"\n")

    def _forget(self, rank: int) -> None:
        self._peers.pop(rank).close()
        self._heard.pop(rank, None)
