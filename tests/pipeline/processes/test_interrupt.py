"""Signals become a flag: at once, without work in handlers, even where the main thread is blocked."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from pipeline.processes.interrupt import SIGNALS, Interrupt

DEADLINE = 20  # seconds; only a failing test waits for it


def run(script: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_sets_the_flag_and_names_itself(number):
    with Interrupt() as interrupt:
        assert not interrupt
        os.kill(os.getpid(), number)
        assert interrupt.wait(DEADLINE)
        assert interrupt
        assert interrupt.received is number


def test_the_first_signal_is_the_one_named():
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interrupt.wait(DEADLINE)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.received is signal.SIGUSR1


def test_handlers_and_descriptor_are_given_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interrupt():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1
    assert not any(thread.name == "interrupt" for thread in threading.enumerate())


def test_the_second_ctrl_c_interrupts_as_usual():
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.wait(DEADLINE)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# The main thread sits in a mutex inside one call of C, as in a collective: no handler runs there.
BLOCKED = """
import ctypes, os
from pipeline.processes.interrupt import Interrupt
mutex = ctypes.create_string_buffer(128)
libc = ctypes.CDLL(None)
with Interrupt() as interrupt:
    def last_resort():
        os.write(1, b"last resort\\n")
        os._exit(7)
    interrupt.otherwise(0.01, last_resort)
    os.write(1, b"ready\\n")
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)
"""


def test_the_last_resort_is_taken_where_no_boundary_is_reached():
    process = run(BLOCKED)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=DEADLINE)
    assert (out, process.returncode) == ("last resort\n", 7)


def test_a_boundary_in_time_makes_the_last_resort_unnecessary():
    taken = threading.Event()
    with Interrupt() as interrupt:
        interrupt.settle()
        interrupt.otherwise(0, taken.set)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.wait(DEADLINE)
        watcher = [thread for thread in threading.enumerate() if thread.name == "last resort"]
        for thread in watcher:
            thread.join(DEADLINE)
    assert not taken.is_set()


def test_a_signal_to_a_child_that_execs_does_not_reach_us():
    with Interrupt() as interrupt:
        child = run("import sys; print('up', flush=True); sys.stdin.read()", stdin=subprocess.PIPE)
        assert child.stdout.readline() == "up\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(DEADLINE) == -signal.SIGTERM  # the default: nothing of ours was inherited
        child.communicate()
        assert not interrupt


def test_a_flood_of_signals_blocks_nobody():
    with Interrupt() as interrupt:
        interrupt._ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for _ in range(10_000):
            signal.raise_signal(signal.SIGUSR1)
        assert interrupt.wait(DEADLINE)


def test_it_needs_no_heavy_package():
    check = (
        "import sys, pipeline.processes.interrupt; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", check], text=True).strip() == "[]"
