"""What the tests of the data path share."""

import pytest

from pipeline.data.shards.manifest import Manifest
from tests.pipeline.packed import pack_digits
from tests.pipeline.ranks import end_all


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The packed digits' training split, for reading only."""
    return Manifest.read(pack_digits(tmp_path_factory.mktemp("sets") / "digits"), "train")


@pytest.fixture(autouse=True)
def _no_process_left():
    yield
    end_all()
