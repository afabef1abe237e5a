"""Real processes that find each other as under a launcher."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tests.pipeline.warm import Forked, suits

ROOT = Path(__file__).parents[2]
DEADLINE = 180  # seconds; only a failing test waits for it
OURS = dict(os.environ)  # before tests, and what they import, change it
Process = subprocess.Popen | Forked
_started: list[Process] = []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    """Ours without what a scheduler or launcher around the tests left in it."""
    left = ("SLURM_", "SUBMITIT_", "MASTER_", "TORCHELASTIC_")
    kept = {
        name: value
        for name, value in OURS.items()
        if not name.startswith(left) and name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    }
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **more}


def torchrun(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def start(
    command: Sequence[Any], env: Mapping[str, str] | None = None, *, cold: bool = False, **options: Any
) -> Process:
    """Python with a command; forked with its imports made, unless it is to be `cold` or they could tell."""
    words, whole, base = [sys.executable, *map(str, command)], environment(**(env or {})), environment()
    process: Process
    if cold or not suits(words, whole, options, base):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(words, env=whole, **pipes, **options)
    else:
        process = Forked(words, whole, base, **options)
    _started.append(process)
    return process


# What a forked process does first: its output goes where the launcher wants it, in a session of its own.
PRELUDE = """
import os, runpy, sys
output = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
os.dup2(output, 1)
os.dup2(output, 2)
os.setsid()
sys.argv = sys.argv[2:]
if sys.argv[0] == "-m":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start_as_local_run(
    command: Sequence[str], *, env: Mapping[str, str], stdout: BinaryIO, **options: Any
) -> Forked:
    """In place of the Popen of pipeline/launching/local.py, in a process that has imported already."""
    assert command[:2] == [sys.executable, "-u"]
    words = [sys.executable, "-c", PRELUDE, str(stdout.name), *command[2:]]
    process = Forked(words, environment(**env), environment())
    _started.append(process)
    return process


def end_all() -> None:
    """No process outlives the test that started it, whatever happened in the test."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
            process.wait()


def start_ranks(
    world: int, command: Sequence[Any], env: Mapping[str, str] | None = None, **options: Any
) -> list[Process]:
    if world == 1:
        return [start(command, env, **options)]
    port = free_port()
    places = [torchrun(rank, world, port) for rank in range(world)]
    return [start(command, {**place, **(env or {})}, **options) for place in places]


def finish(processes: Sequence[Process]) -> list[str]:
    """Standard output of each, all of which must have ended well."""
    ended = [process.communicate(timeout=DEADLINE) for process in processes]
    for process, (out, err) in zip(processes, ended, strict=True):
        assert process.returncode == 0, f"status {process.returncode}\n{out}\n{err}"
    return [out for out, _ in ended]


def run_ranks(world: int, command: Sequence[Any], **more: str) -> list[str]:
    processes = start_ranks(world, command, more)
    try:
        return finish(processes)
    finally:
        for process in processes:
            process.kill()
