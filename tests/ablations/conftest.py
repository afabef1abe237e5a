import functools
import shutil
from pathlib import Path

import pytest

from ablations.reporting.cells import asked
from tests.ablations.drawn import Scene, scene
from tests.ablations.recorded import Shelf

ROOT = Path(__file__).parents[2]
ASKED = functools.cache(asked)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(autouse=True)
def composed_once(monkeypatch):
    """What the tables ask for is the same in every test, and takes a second to compose."""
    monkeypatch.setattr("ablations.reporting.collect.asked", ASKED)


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    """A folder of records, beside a copy of the sizes that were counted."""
    (tmp_path / "results").mkdir()
    shutil.copy(ROOT / "results" / "sizes.json", tmp_path / "results" / "sizes.json")
    return Shelf(tmp_path / "results" / "records")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Scene:
    return scene(tmp_path_factory.mktemp("drawn"))
