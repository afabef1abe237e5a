"""For all tests: torch takes one thread, as `make test` runs several at once; groups stay together; and where
there is no GPU, Triton's kernels run in its interpreter, which must be said before Triton is imported."""

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Started where Ctrl-C is ignored (`nohup make test &`), processes of the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tests of one xdist_group share a worker: pytest-xdist writes the group into their ids."""
    for item in session.items:
        if session.config.getoption("loadgroup", False) and item.get_closest_marker("xdist_group"):
            assert "@" in item.nodeid, "this pytest-xdist does not keep groups together under this pytest"
