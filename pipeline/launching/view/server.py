"""The page: a small server on this machine's own address, which can be read and not written.

It answers by a path that only the one who started it knows, as others may work on the same login node, and to
the names of this machine alone: a page from elsewhere whose name was pointed here is refused.
"""

import json
import re
import secrets
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from pipeline.errors import UserError

ADDRESS = "127.0.0.1"
OWN_NAMES = re.compile(r"(127\.0\.0\.1|localhost)(:\d{1,5})?")
TYPES = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
DATA = "status.json"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class ViewServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, look: Callable[[], dict[str, Any]]) -> None:
        self._look, self._looking = look, threading.Lock()
        self.secret = secrets.token_urlsafe(16)
        folder = resources.files(__package__)
        self._files = {name: folder.joinpath(name).read_bytes() for name in TYPES}
        try:
            super().__init__((ADDRESS, port), _Answer)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "no such port"
            raise UserError(f"port={port}: {why}; choose another, or html=true takes a free one") from error

    @property
    def address(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/{self.secret}/"

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """The kind and the content of what stands at a path."""
        name = path.removeprefix(f"/{self.secret}/")
        if name == path:
            return None
        if name == DATA:
            with self._looking:  # the same files are not read by two at once
                return "application/json", json.dumps(self._look()).encode()
        name = name or "page.html"
        return (TYPES[name], self._files[name]) if name in TYPES else None


class _Answer(BaseHTTPRequestHandler):
    server: ViewServer
    sys_version = server_version = ""
    timeout = 10  # seconds for a request to come

    def do_GET(self) -> None:
        if not OWN_NAMES.fullmatch(self.headers.get("Host", "")):
            self._send(403, "text/plain", b"this page has no other name than 127.0.0.1\n")
            return
        try:
            found = self.server.answer(self.path)
        except (UserError, OSError) as error:
            self._send(500, "text/plain", f"{error}\n".encode())
            return
        if found is None:
            self._send(404, "text/plain", b"nothing here; the whole address was printed by launch.py\n")
        else:
            self._send(200, *found)

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        sent = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(content)), **HEADERS}
        for name, value in sent.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *values: Any) -> None:
        """Nothing: a line for each of its questions would fill the terminal."""


def serve(port: int, look: Callable[[], dict[str, Any]]) -> int:
    """Until Ctrl-C; port 0 is any that is free."""
    with ViewServer(port, look) as server:
        print(f"the runs as a page: {server.address}", flush=True)
        print(
            f"from another machine: ssh -L {server.server_port}:{ADDRESS}:{server.server_port} "
            f"{socket.gethostname()}, then the same address; Ctrl-C ends it, and no run",
            flush=True,
        )
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("\nthe page is closed; runs go on")
    return 0
