"""Locks, lines of JSON and hashes, whatever else happens to their files."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading

import pytest

from pipeline.errors import WorkFailed
from pipeline.files import LockedElsewhere, append_row, locked, locked_by, rows, sha256
from tests.pipeline.ranks import DEADLINE, environment

ASK = """
import sys; from pathlib import Path; from pipeline.files import locked_by
print(locked_by(Path(sys.argv[1])))
"""


def asked_by_another(path):
    command = [sys.executable, "-c", ASK, str(path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_process_that_asks_about_its_own_lock_keeps_it(tmp_path):
    path = tmp_path / "lock"
    assert locked_by(path) is None
    with locked(path) as file:
        file.write("mine")
        file.flush()
        assert locked_by(path) == "mine"
        assert asked_by_another(path) == "mine"  # a lock of POSIX goes when its file is opened and closed
        os.symlink(path, tmp_path / "link")
        with pytest.raises(LockedElsewhere), locked(tmp_path / "link"):
            pass
        assert asked_by_another(path) == "mine"
    assert locked_by(path) is None
    assert asked_by_another(path) == "None"


def test_threads_of_a_process_wait_for_each_other(tmp_path):
    path, inside, waits = tmp_path / "lock", [], threading.Event()

    def second():
        with locked(path, waiting=waits.set):
            inside.append("second")

    with locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(DEADLINE)
        inside.append("first")
    thread.join(DEADLINE)
    assert inside == ["first", "second"]


def test_a_forked_child_does_not_take_its_parents_lock_for_its_own(tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        child = os.fork()
        if not child:
            try:
                with locked(path):
                    os._exit(1)
            except LockedElsewhere:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert asked_by_another(path) == ""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_to_be_one(tmp_path, monkeypatch, number):
    """No such file system is at hand: the kernel's answer is played."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(WorkFailed, match="without locks"), locked(tmp_path / "lock"):
        pass
    with pytest.raises(WorkFailed, match="without locks"), locked(tmp_path / "lock", waiting=lambda: None):
        pass
    with pytest.raises(WorkFailed, match="without locks"):
        locked_by(tmp_path / "lock")


def test_a_line_after_one_that_a_crash_cut_off_is_read(tmp_path):
    path = tmp_path / "lines.jsonl"
    assert rows(path) == []
    append_row(path, {"a": 1})
    with open(path, "ab") as file:
        file.write(b'{"a": 2}\n\xff\n[3]\n{"a": 4')
    assert rows(path) == [{"a": 1}, {"a": 2}]
    append_row(path, {"a": 5})
    assert rows(path) == [{"a": 1}, {"a": 2}, {"a": 5}]
    assert json.loads(path.read_text(errors="replace").splitlines()[-1]) == {"a": 5}
    assert os.stat(path).st_mode & 0o077 == 0


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    # FIPS 180-4's example
    assert sha256(tmp_path / "file").startswith("ba7816bf8f01cfea414140de5dae2223")
