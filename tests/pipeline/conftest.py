"""What the tests of the data path share."""

import subprocess
from types import SimpleNamespace

import pytest

from pipeline.data.shards.manifest import Manifest
from pipeline.launching import local
from tests.pipeline.packed import pack_digits
from tests.pipeline.ranks import end_all, start_as_local_run


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The packed digits' training split, for reading only."""
    return Manifest.read(pack_digits(tmp_path_factory.mktemp("sets") / "digits"), "train")


@pytest.fixture(autouse=True)
def _no_process_left():
    yield
    end_all()


@pytest.fixture(scope="module")
def warm_local_runs():
    """What launch.py starts here, when a test calls it in its own process, has imported already."""
    with pytest.MonkeyPatch.context() as patch:
        stands_for = SimpleNamespace(Popen=start_as_local_run, DEVNULL=subprocess.DEVNULL)
        patch.setattr(local, "subprocess", stands_for)
        yield
