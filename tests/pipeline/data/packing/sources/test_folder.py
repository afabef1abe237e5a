"""A folder of images as a source."""

import pytest

from pipeline.data.packing.sources.folder import LONGEST_KEY, folder, unique_key
from pipeline.errors import UserError
from tests.pipeline.data.packing.sources.archived import samples
from tests.pipeline.pictures import jpeg, plant, png


def test_a_class_folder_tree_becomes_its_splits(tmp_path):
    tree = {f"train/{c}/{i}.JPG": jpeg(seed=i) for c in ("dog", "cat") for i in range(2)}
    tree |= {"val/cat/v.png": png(), "train/cat/deep/er/x.jpeg": jpeg(), "train/cat/.hidden.jpg": b""}
    plant(tmp_path, tree | {"train/cat/notes.txt": b"?"})
    source = folder(tmp_path)
    assert source.classes == ("cat", "dog")
    assert samples(source, "validation") == {"cat/v": ("cat", png())}
    found = samples(source, "train")
    assert set(found) == {"cat/0", "cat/1", "cat/deep/er/x", "dog/0", "dog/1"}
    assert found["dog/1"] == ("dog", jpeg(seed=1))
    assert source.notes[0].startswith("1 files without an image extension were left out")


def test_classes_alone_are_a_training_split(tmp_path):
    plant(tmp_path, {"a/1.jpg": jpeg(), "b/1.jpg": jpeg()})
    assert list(folder(tmp_path).splits) == ["train"]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "has no folders"),
        ({"a/readme.txt": b""}, "a holds no images"),
        ({"train/a/1.jpg": b"x", "val/b/1.jpg": b"x"}, "has classes that train does not have: b"),
        ({"train/a/1.jpg": b"x", "val/a/1.jpg": b"x", "test/a/1.jpg": b"x"}, "both val/ and test/"),
    ],
)
def test_folders_that_would_mislabel_are_refused(tmp_path, tree, message):
    plant(tmp_path, tree)
    with pytest.raises(UserError, match=message):
        folder(tmp_path)


def test_keys_are_unique_short_enough_and_without_dots():
    taken = set()
    names = [
        "a/x.y.jpg",
        "a/x_y.jpg",
        "a/x_y.png",
        "a.b/" + "ü" * 80 + ".jpg",
        "a.b/" + "ü" * 81 + ".jpg",
        "a/n\nl.jpg",
    ]
    keys = [unique_key(name, taken) for name in names]
    assert keys[0] == "a/x_y"
    assert len(set(keys)) == len(names)
    for key in keys:
        assert len(key.encode()) <= LONGEST_KEY
        assert "." not in key.rpartition("/")[2]
        assert "\n" not in key
