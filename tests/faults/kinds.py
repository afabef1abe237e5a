"""What may stand where a file is expected."""

import os
import socket
from pathlib import Path


def fifo(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)  # a socket's name may have 107 bytes, /proc makes it short
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("nothing")


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**12)


def holding(content: bytes):
    return lambda path: path.write_bytes(content)


KINDS = {
    **{each.__name__: each for each in (fifo, bound_socket, folder, loop, dangling, endless, sparse)},
    **{
        name: holding(content)
        for name, content in {
            "empty": b"",
            "zeros": bytes(4096),
            "latin-1": "Bücher\n".encode("latin-1"),
            "null": b"null",
            "text": b'"\\u001b[2J"',
            "list": b"[[]]",
            "not a number": b'{"schema": 2, "time": NaN, "samples": Infinity}',
            "5000 digits": b'{"schema": ' + b"9" * 5000 + b"}",
            "deep list": b"[" * 100_000 + b"]" * 100_000,
            "deep object": b'{"a":' * 900 + b"1" + b"}" * 900,
            "escapes": b"\x1b]0;title\x07\n\x1b[2J: {",
        }.items()
    },
}
