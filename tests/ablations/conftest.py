import functools
import shutil

import pytest

from ablations import report
from ablations.reporting.cells import cells_of
from ablations.reporting.sizes import KEPT
from tests.ablations.drawn import Scene, scene
from tests.ablations.recorded import Shelf

CELLS_OF = functools.cache(cells_of)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(autouse=True)
def composed_once(monkeypatch):
    """What the tables ask for is the same in every test, and takes a second to compose."""
    monkeypatch.setattr("ablations.reporting.collect.cells_of", CELLS_OF)


@pytest.fixture(autouse=True)
def copied_sizes(tmp_path_factory, monkeypatch):
    """Sizes that a test counts go into a copy of the kept ones."""
    monkeypatch.setattr(report, "KEPT", shutil.copy(KEPT, tmp_path_factory.mktemp("kept") / "sizes.json"))


@pytest.fixture
def shelf(tmp_path) -> Shelf:
    """A folder of records."""
    (tmp_path / "results").mkdir()
    return Shelf(tmp_path / "results" / "records")


@pytest.fixture
def some(shelf: Shelf) -> Shelf:
    """Table 6 with a cell that was not run, and with another protocol beside it."""
    shelf.fill("inner_heads", {"1": [81.0, 81.1], "4": [81.3, 81.2, 81.4], "8": [80.2]})
    shelf.fill("inner_heads", {"2": [79.0]}, ["recipe.epochs=100"])
    return shelf


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Scene:
    return scene(tmp_path_factory.mktemp("drawn"))
