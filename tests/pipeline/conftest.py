"""What the tests of the data path and of real runs share."""

import subprocess
from types import SimpleNamespace

import pytest

from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources import digits as source
from pipeline.data.shards.manifest import Manifest
from pipeline.launching import local
from tests.pipeline.packed import pack_digits
from tests.pipeline.ranks import end_all, start_as_local_run
from tests.pipeline.small_runs import Left, Place


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The packed digits' training split, for reading only."""
    return Manifest.read(pack_digits(tmp_path_factory.mktemp("sets") / "digits"), "train")


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """The packed digits of small real runs."""
    folder = tmp_path_factory.mktemp("shards")
    make(source.digits(), folder, Packing(workers=1))
    return folder


@pytest.fixture(scope="session")
def gold(tmp_path_factory, shards):
    """What an undisturbed run of a world size and a ZeRO stage leaves."""
    known = {}

    def left(world: int = 1, stage: int = 0) -> Left:
        if (world, stage) not in known:
            place = Place(tmp_path_factory.mktemp("gold"), shards)
            known[world, stage] = Left.by(place.train(f"engine.zero_stage={stage}", world=world))
            assert place.record["attempts"] == 1
            assert place.record["events"] == []
        return known[world, stage]

    return left


@pytest.fixture
def place(tmp_path, shards):
    return Place(tmp_path, shards)


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
