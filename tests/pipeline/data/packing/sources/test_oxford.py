"""Flowers and Pets in the layouts of the published archives."""

import gzip

import pytest
from scipy.io import savemat

from pipeline.data.packing.sources.folder import folder
from pipeline.data.packing.sources.oxford import flowers, pets
from pipeline.data.packing.sources.source import Expectation, check_counts
from pipeline.errors import UserError, WorkFailed
from tests.pipeline.data.packing.sources.archived import samples, tar_bytes
from tests.pipeline.pictures import jpeg, plant


def test_flowers_train_on_the_training_and_validation_lists(tmp_path):
    images = {f"jpg/image_{i:05d}.jpg": jpeg(seed=i) for i in range(1, 9)}
    (tmp_path / "102flowers.tgz").write_bytes(gzip.compress(tar_bytes(images)))
    labels = [1, 2, 1, 2, 1, 2, 2, 1]
    savemat(tmp_path / "imagelabels.mat", {"labels": [labels]})
    savemat(tmp_path / "setid.mat", {"trnid": [[8, 2]], "valid": [[1, 4]], "tstid": [[3, 5, 6, 7]]})
    expected = Expectation(2, {"train": 4, "validation": 4}, {"train": (2, 2), "validation": (2, 2)})
    source = flowers(tmp_path, expected)
    wanted = {f"image_{i:05d}": (str(labels[i - 1]), jpeg(seed=i)) for i in (8, 2, 1, 4)}
    assert samples(source, "train") == wanted
    assert set(samples(source, "validation")) == {f"image_{i:05d}" for i in (3, 5, 6, 7)}
    with pytest.raises(UserError, match="flowers has 102 classes"):
        flowers(tmp_path)
    (tmp_path / "setid.mat").write_bytes(b"garbage" * 40)
    with pytest.raises(WorkFailed, match=r"setid\.mat cannot be read"):
        flowers(tmp_path, expected)


def plant_pets(root):
    images = {f"images/{stem}.jpg": jpeg(seed=i) for i, stem in enumerate(PETS)}
    (root / "images.tar.gz").write_bytes(gzip.compress(tar_bytes(images)))
    lists = {"annotations/trainval.txt": PETS[::2], "annotations/test.txt": PETS[1::2]}
    text = {
        name: "# comment\n" + "".join(f"{stem} {1 + ('pug' in stem)} 1 1\n" for stem in stems)
        for name, stems in lists.items()
    }
    (root / "annotations.tar.gz").write_bytes(
        gzip.compress(tar_bytes({f"./{name}": content.encode() for name, content in text.items()}))
    )


PETS = ["great_dane_1", "great_dane_2", "pug_1", "pug_12"]


def test_pets_follow_the_official_lists(tmp_path):
    plant_pets(tmp_path)
    expected = Expectation(2, {"train": 2, "validation": 2}, {"train": (1, 1), "validation": (1, 1)})
    source = pets(tmp_path, expected)
    assert source.classes == ("great_dane", "pug")
    assert samples(source, "train") == {
        "great_dane_1": ("great_dane", jpeg(seed=0)),
        "pug_1": ("pug", jpeg(seed=2)),
    }
    assert set(samples(source, "validation")) == {"great_dane_2", "pug_12"}
    with pytest.raises(UserError, match="pets has 37 classes"):
        pets(tmp_path)
    (tmp_path / "images.tar.gz").unlink()
    with pytest.raises(UserError, match=r"lacks images\.tar\.gz"):
        pets(tmp_path, expected)


def test_a_split_that_is_missing_is_named(tmp_path):
    plant(tmp_path, {"a/1.jpg": jpeg(), "b/1.jpg": jpeg()})
    expected = Expectation(2, {"train": 2, "validation": 2}, {"train": (1, 1), "validation": (1, 1)})
    with pytest.raises(UserError, match="has no validation split here"):
        check_counts(folder(tmp_path), expected)
