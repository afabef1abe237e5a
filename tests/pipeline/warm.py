"""Python processes without the seconds of importing: a warm process has imported, and forks one per command.

A command becomes a process of its own, as subprocess.Popen would have started it: pid, group, pipes, working
directory, environment, signals, exit status, `__main__`. Unlike there, its hashes have its siblings' seed,
/proc shows the warm process's command line, and it is killed when the warm process ends, which does so when
the process that started it closes its socket, be it by dying.
"""

import contextlib
import importlib
import inspect
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

# What pipeline/train.py has imported after its first steps, some of it by importing torch's compiler.
IMPORTED = (
    *(
        "pipeline.runs.attempts",
        "pipeline.training.completion",
        "pipeline.training.logger",
        "pipeline.training.trainer",
    ),
    *(
        "pipeline.data.augmentation.randaugment",
        "pipeline.data.augmentation.views",
        "hydra",
        "hydra.core.config_store",
    ),
    *("deepspeed.ops.op_builder.all_ops", "deepspeed.module_inject.auto_ep_layer"),
    *("deepspeed.runtime.zero.muon.muon_optimizer", "torch._dynamo", "torch.utils.serialization.config"),
    *("deepspeed.runtime.superoffload.superoffload_stage3", "distutils.ccompiler", "simplejpeg"),
)
# What nothing reads while it is imported.
LATE = ("PYTEST_", "SLURM_", "MASTER_", "RANK", "LOCAL_RANK", "WORLD_SIZE")
LARGEST_REQUEST = 1 << 17
NUMBER = 8  # bytes


class Warm:
    def __init__(self, env: Mapping[str, str], imported: Sequence[str] = IMPORTED) -> None:
        self._early = _early(env)
        self.door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = f"from tests.pipeline.warm import serve; serve({theirs.fileno()}, {imported})()"
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={**env, "DS_ACCELERATOR": "cpu"},  # as the engine says it before it imports DeepSpeed
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def suits(self, command: Sequence[str], env: Mapping[str, str], options: Mapping[str, Any]) -> bool:
        """Whether a process that has imported already can stand for a new one."""
        runs = command[1] == "-c" or not command[1].startswith("-")
        return runs and _early(env) == self._early and options.keys() <= {"cwd", "stdin"}

    def start(self, command: Sequence[str], env: Mapping[str, str], **options: Any) -> "Forked":
        """`command` is Python's: [sys.executable, script or "-c" and code, …]."""
        return Forked(self, command, env=env, **options)

    def close(self) -> None:
        self.door.close()
        self.process.wait()


def _early(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.startswith(LATE)}


class Forked(subprocess.Popen):
    """A Popen whose process is the warm one's child, which says its pid, then its status, through a pipe."""

    def __init__(self, warm: Warm, command: Sequence[str], **options: Any) -> None:
        self._warm = warm
        super().__init__(command, **options)

    def _execute_child(self, *given: Any) -> None:
        names = list(inspect.signature(subprocess.Popen._execute_child).parameters)[1:]
        asked = dict(zip(names, given, strict=True))
        ends = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        request = pickle.dumps((asked["args"][1:], asked["env"], os.fspath(asked["cwd"] or os.getcwd())))
        read, write = os.pipe()
        self._said = os.fdopen(read, "rb", buffering=0)
        files = [number if end == -1 else end for number, end in enumerate(ends)]
        try:
            socket.send_fds(self._warm.door, [request], [*files, write])
        finally:
            for file in {write, *ends} - {-1}:
                os.close(file)
        self.pid = self._hear()
        self._child_created = True

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self.returncode is None:
            if not select.select([self._said], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._hear()
            self._said.close()
        return self.returncode

    def _hear(self) -> int:
        message = self._said.read(NUMBER)
        assert message, "the warm process is gone"
        return int.from_bytes(message, "little", signed=True)


def serve(door_file: int, imported: Sequence[str]) -> Callable[[], None]:
    """Returns in each forked process, with what it is to run, and in the warm one when nobody is left to ask.

    What runs is called from the outermost frame, so that Python ends it as it ends any script.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us decides
    for name in imported:
        importlib.import_module(name)
    door = socket.socket(fileno=door_file)
    children: dict[int, tuple[int, int]] = {}  # by descriptor: the process, and the pipe to tell of its end
    poll = select.poll()
    poll.register(door, select.POLLIN)
    while True:
        for file, _ in poll.poll():
            if file in children:
                poll.unregister(file)
                pid, pipe = children.pop(file)
                _say(pipe, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                os.close(pipe)
                os.close(file)
                continue
            request, files, _, _ = socket.recv_fds(door, LARGEST_REQUEST, 4)
            if not request:
                return lambda: None
            assert len(os.listdir("/proc/self/task")) == 1, "a thread would be missing after a fork"
            parent, pid = os.getpid(), os.fork()
            if not pid:
                door.detach()
                return _become(parent, files[:3], *pickle.loads(request))
            *_, pipe = files
            for file in files[:3]:
                os.close(file)
            _say(pipe, pid)
            child = os.pidfd_open(pid)
            children[child] = pid, pipe
            poll.register(child, select.POLLIN)


def _say(pipe: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        os.write(pipe, number.to_bytes(NUMBER, "little", signed=True))


def _become(
    parent: int, files: Sequence[int], command: list[str], env: dict[str, str], folder: str
) -> Callable[[], None]:
    from pipeline.data.loading.worker import _die_with

    _die_with(parent)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
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
    return lambda: exec(code, vars(main))
