"""Python processes without the seconds of importing: multiprocessing's forkserver has imported already.

A process that it forks finds what a new one would: arguments, environment, working directory, pipes, signals,
`__main__`. Unlike there, its hashes have its siblings' seed, /proc shows the server's command line, nothing
that was registered with atexit is called, the pipe to multiprocessing's tracker stays, and it is killed when
the process that started the server is gone.
"""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

# What pipeline/train.py has imported after its first steps, some of it by importing torch's compiler.
IMPORTED = (
    "tests.pipeline.warm",
    "pipeline.runs.attempts",
    "pipeline.training.completion",
    "pipeline.training.logger",
    "pipeline.training.trainer",
    "pipeline.data.augmentation.randaugment",
    "pipeline.data.augmentation.views",
    "hydra",
    "hydra.core.config_store",
    "deepspeed.ops.op_builder.all_ops",
    "deepspeed.module_inject.auto_ep_layer",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "torch._dynamo",
    "torch.utils.serialization.config",
    "deepspeed.runtime.superoffload.superoffload_stage3",
    "distutils.ccompiler",
    "simplejpeg",
)
# What nothing reads while it is imported.
LATE = ("PYTEST_", "SLURM_", "MASTER_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "WANDB_", "AWS_", "PATH")


def suits(
    command: Sequence[str], env: Mapping[str, str], options: Mapping[str, Any], base: Mapping[str, str]
) -> bool:
    """Whether a process that has imported already, in the environment `base`, can stand for a new one."""
    runs = command[1] == "-c" or not command[1].startswith("-")
    return runs and _early(env) == _early(base) and options.keys() <= {"cwd", "stdin"}


def _early(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith(LATE)}


@functools.cache
def _context(base: tuple[tuple[str, str], ...]) -> multiprocessing.context.BaseContext:
    """The server starts in the environment `base`, and with it imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    ours = dict(os.environ)
    os.environ.clear()
    # As the engine says it before it imports DeepSpeed.
    os.environ.update(base, DS_ACCELERATOR="cpu")
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(ours)
    return context


class Forked:
    """The part of subprocess.Popen that the tests use. `command` begins with Python, then a script or -c."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        base: Mapping[str, str],
        cwd: Path | None = None,
        stdin: int | None = None,
    ) -> None:
        context = _context(tuple(sorted(base.items())))
        self.args = command
        out, err = context.Pipe(duplex=False), context.Pipe(duplex=False)
        back = context.Pipe(duplex=False) if stdin == subprocess.PIPE else (None, None)
        given = (list(command[1:]), dict(env), os.fspath(cwd or os.getcwd()), (back[0], out[1], err[1]))
        self._process = context.Process(target=_run, args=given)
        self._process.start()
        for theirs in (back[0], out[1], err[1]):
            if theirs is not None:
                theirs.close()
        self.pid = self._process.pid
        self.stdin = _text(back[1], "w")
        self.stdout, self.stderr = _text(out[0], "r"), _text(err[0], "r")
        self._said: dict[str, str] = {}
        self._readers: list[threading.Thread] = []

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        if self.stdin and not self.stdin.closed:
            self.stdin.write(input or "")
            self.stdin.close()
        if not self._readers:
            for name in ("stdout", "stderr"):
                self._readers.append(threading.Thread(target=self._read, args=[name], daemon=True))
                self._readers[-1].start()
        for reader in self._readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(timeout)
        return self._said["stdout"], self._said["stderr"]

    def _read(self, name: str) -> None:
        with getattr(self, name) as file:
            self._said[name] = file.read()


def _text(connection: Connection | None, mode: str) -> Any:
    return None if connection is None else open(os.dup(connection.fileno()), mode)


def _run(command: list[str], env: dict[str, str], folder: str, pipes: Sequence[Connection | None]) -> None:
    """What the forked process does; multiprocessing ends it, with the status of a SystemExit."""
    from pipeline.data.loading.worker import _die_with

    _die_with(os.getppid())
    with open(os.devnull) as nothing:
        for number, pipe in enumerate(pipes):
            os.dup2(nothing.fileno() if pipe is None else pipe.fileno(), number)
            if pipe is not None:
                pipe.close()
    # One of the rest keeps the server alive. Were the tracker's closed here, multiprocessing would close its
    # number again when it needs the tracker, and that may be another file's by then.
    tracker = resource_tracker.getfd()
    os.closerange(3, tracker)
    os.closerange(tracker + 1, os.sysconf("SC_OPEN_MAX"))
    sys.stdin = open(0)  # noqa: SIM115 - multiprocessing put another file in its place
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    main = sys.modules["__main__"] = ModuleType("__main__")
    if command[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *command[2:]], ""
        code = compile(command[1], "<string>", "exec")
    else:
        sys.argv, sys.path[0] = command, str(Path(command[0]).resolve().parent)
        main.__file__ = command[0]
        code = compile(Path(command[0]).read_bytes(), command[0], "exec")
    try:
        exec(code, vars(main))
    except SystemExit:
        raise
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):  # as Python ends itself then
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        sys.exit(1)
