"""One cluster for all tests of this folder, which one worker runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.daemons import missing

REQUIRED = "TNT_REQUIRE_SLURM"  # set in CI: what is skipped elsewhere fails there


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = "" if os.environ.get(REQUIRED) else missing()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.xdist_group("slurm"))
            if reason:
                item.add_marker(pytest.mark.skip(f"NO SLURM, NOTHING OF IT IS TESTED: {reason}"))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture
def slurm(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with all its nodes, and no job of another test on it."""
    yield cluster
    cluster.restore()
