"""What is kept between commands changes nothing but their speed."""

import pytest

from pipeline.config import composition, overrides
from pipeline.config.composition import kept


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    overrides._grouped.cache_clear()
    yield tmp_path / "cache" / "tnt-lab"
    overrides._grouped.cache_clear()


def test_a_value_is_worked_out_once(home):
    made = []
    for _ in range(2):
        assert kept("key", lambda: made.append(1) or {"a": 1.5, "b": [None, "é"]}) == {
            "a": 1.5,
            "b": [None, "é"],
        }
    assert made == [1]
    assert kept("other", dict) == {}


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff", b"null"])
def test_damage_is_worked_out_anew(home, damage):
    kept("key", lambda: {"a": 1})
    (home / "key.json").write_bytes(damage)
    assert kept("key", lambda: {"a": 2}) == {"a": 2}
    assert kept("key", lambda: {"a": 3}) == {"a": 2}


def test_a_folder_that_cannot_be_written_is_done_without(home, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert kept("key", lambda: {"a": 1}) == {"a": 1}
    assert composition.folder() == home


def test_a_composition_from_the_cache_is_the_composition(home):
    asked = ["scale=demo", "model=tnt_b", "data=pets", "recipe=finetune_fine_grained"]
    fresh = overrides._compose(asked, resolve=True)
    [path] = home.iterdir()
    overrides._grouped.cache_clear()
    assert overrides._compose(asked, resolve=True) == fresh
    assert [*home.iterdir()] == [path]


def test_a_changed_file_of_the_configs_is_seen(home, tmp_path, monkeypatch):
    """The files are part of the key, one's own local ones too."""
    before = overrides._compose(["scale=demo"], resolve=True)["recipe"]["lr"]
    copy = tmp_path / "conf"
    for path in composition.FOLDER.rglob("*.yaml"):
        target = copy / path.relative_to(composition.FOLDER)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    monkeypatch.setattr(composition, "FOLDER", copy)
    overrides._grouped.cache_clear()
    assert overrides._compose(["scale=demo"], resolve=True)["recipe"]["lr"] == before
    assert len([*home.iterdir()]) == 1  # the same content is the same composition
    path = copy / "demo_recipe/demo_pretrain.yaml"
    path.write_text(path.read_text().replace("lr: 1.5e-3", "lr: 7.0e-3"))
    overrides._grouped.cache_clear()
    assert overrides._compose(["scale=demo"], resolve=True)["recipe"]["lr"] == 7e-3
