"""A forked process is what a new one would have been, and none stays behind."""

import json
import os
import select
import signal
import subprocess
import sys

import pytest

from tests.pipeline.ranks import DEADLINE, environment, start
from tests.pipeline.warm import Forked

# What a script can find out about how it was started.
TELL = """
import json, os, signal, sys, threading
print(json.dumps({
    "name": __name__, "file": globals().get("__file__"),
    "main": sys.modules["__main__"].__dict__ is globals(),
    "argv": sys.argv, "path": sys.path[:2], "folder": os.getcwd(), "read": sys.stdin.read(),
    "env": dict(os.environ), "group": os.getpgid(0), "session": os.getsid(0),
    "files": os.listdir("/proc/self/fd"), "masked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "handlers": [repr(signal.getsignal(n)).split(" at ")[0] for n in sorted(signal.valid_signals())],
    "buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering],
    "threads": [thread.name for thread in threading.enumerate()], "pid": os.getpid(),
    "server": len(os.listdir(f"/proc/{os.getppid()}/task")),
}))
sys.exit(3)
"""


@pytest.mark.parametrize("kind", ["script", "code"])
def test_a_forked_process_finds_what_a_new_one_does(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("_TORCHINDUCTOR_", "as imports and compilers set variables in the tests' own process")
    (tmp_path / "tell.py").write_text(TELL)
    command = [tmp_path / "tell.py", "a", "b c"] if kind == "script" else ["-c", TELL, "a", "b c"]
    told, files = [], []
    for cold in (True, False):
        process = start(command, {"RANK": "7"}, cold=cold, cwd=tmp_path, stdin=subprocess.PIPE)
        assert isinstance(process, Forked) is not cold
        out, err = process.communicate("said", timeout=DEADLINE)
        assert (process.returncode, err) == (3, ""), err
        told.append(json.loads(out))
        assert told[-1].pop("pid") == process.pid
        server = told[-1].pop("server")
        files.append(told[-1].pop("files"))
    assert told[1] == told[0]
    assert len(files[1]) == len(files[0]) + 1  # the one that leads to multiprocessing's tracker
    assert server == 1, "the server has other threads, which are missing after a fork"


def test_what_imports_could_tell_takes_a_new_process():
    for more in ({"env": {"OMP_NUM_THREADS": "2"}}, {"env": {"LC_ALL": "C"}}, {"start_new_session": True}):
        process = start(["-c", "pass"], **more)
        assert not isinstance(process, Forked)
        assert process.wait(DEADLINE) == 0
    process = start(["-X", "utf8", "-c", "pass"])
    assert not isinstance(process, Forked)
    assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it_with_the_same_status(number):
    ended = []
    for cold in (True, False):
        process = start(["-c", "print('up', flush=True); input()"], cold=cold, stdin=subprocess.PIPE)
        process.stdout.readline()
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE)
        ended.append((process.returncode, err.splitlines()[-1:]))
        process.kill()  # it is gone: nothing is sent
    assert ended[1] == ended[0]
    assert ended[0][0] == -number


def test_an_error_is_shown_and_is_status_1():
    process = start(["-c", "import threading; threading.Thread(target=print, args=['last']).start(); 1 / 0"])
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (1, "last\n")
    assert err.endswith("ZeroDivisionError: division by zero\n")


HOLDER = """
import os, sys, time
from tests.pipeline import warm
from tests.pipeline.ranks import start
if __name__ == "__main__":
    warm.IMPORTED = ()
    forked = start(["-c", "import os, time; print(os.getppid(), flush=True); time.sleep(600)"])
    print(forked.pid, forked.stdout.readline(), flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_when_the_tests_are_killed():
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], env=environment(), stdout=subprocess.PIPE)
    try:
        left = [os.pidfd_open(int(pid)) for pid in holder.stdout.readline().split()]
        assert len(left) == 2
    finally:
        holder.kill()
        holder.communicate()
    for file in left:
        assert select.select([file], [], [], DEADLINE)[0]  # readable when the process has ended
        os.close(file)
