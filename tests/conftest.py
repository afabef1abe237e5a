"""For all tests: torch takes one thread, as `make test` runs several at once; groups stay together; SIGINT
interrupts; and without a GPU Triton's kernels run in its interpreter, set before Triton is imported."""

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# In a shell's background and under many CI runners SIGINT is ignored, and would be by all that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tests of one xdist_group share a worker: pytest-xdist writes the group into their ids."""
    for item in session.items:
        if session.config.getoption("loadgroup", False) and item.get_closest_marker("xdist_group"):
            assert "@" in item.nodeid, "this pytest-xdist does not keep groups together under this pytest"
