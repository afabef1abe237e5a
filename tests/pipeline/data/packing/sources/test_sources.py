"""Synthetic archives in the layouts of the published ones."""

import gzip
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.data.packing.sources.cifar import LAYOUTS, cifar, unpickle
from pipeline.data.packing.sources.digits import digits
from pipeline.data.packing.sources.folder import LONGEST_KEY, folder, unique_key
from pipeline.data.packing.sources.imagenet import imagenet
from pipeline.data.packing.sources.oxford import flowers, pets
from pipeline.data.packing.sources.source import TABLE_2, Expectation, check_counts
from pipeline.errors import UserError, WorkFailed
from tests.pipeline.pictures import jpeg, pixels, plant, png


def tar_bytes(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def samples(source, split):
    """key -> (class name, payload), the whole of what a split holds."""
    rows = source.splits[split]
    return {
        key.decode(): (source.classes[label], source.read(split, row))
        for row, (key, label) in enumerate(zip(rows.key.tolist(), rows.label.tolist(), strict=True))
    }


def test_the_expected_counts_are_those_of_the_papers_table_2():
    table = {name: (*one.samples.values(), one.classes) for name, one in TABLE_2.items()}
    assert table == {
        "imagenet": (1_281_167, 50_000, 1000),
        "flowers": (2_040, 6_149, 102),
        "pets": (3_680, 3_669, 37),
        "cifar10": (50_000, 10_000, 10),
        "cifar100": (50_000, 10_000, 100),
    }
    for name, one in TABLE_2.items():
        for split, total in one.samples.items():
            least, most = one.per_class[split]
            assert least * one.classes <= total <= most * one.classes, (name, split)


# Digits


def test_digits_are_scikit_learns_split_by_class():
    source = digits()
    train, validation = (source.splits[split] for split in ("train", "validation"))
    assert (len(train.key), len(validation.key)) == (1437, 360)
    assert not set(train.key) & set(validation.key)
    assert np.bincount(validation.label).min() >= 34
    assert source.classes == tuple("0123456789")


@pytest.mark.parametrize("form", ["jpg", "png"])
def test_digits_are_rgb_of_the_asked_size_and_the_same_each_time(form):
    first, second = digits(48, form), digits(48, form)
    payload = first.read("train", 7)
    assert payload == second.read("train", 7)
    assert pixels(payload).shape == (48, 48, 3)
    assert payload.startswith(b"\x89PNG" if form == "png" else b"\xff\xd8")


def test_digits_refuse_what_they_cannot_be():
    with pytest.raises(UserError, match="valid are jpg, png"):
        digits(form="bmp")
    with pytest.raises(UserError, match="outside 8 to 1024"):
        digits(4)


# Folders


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


# ImageNet

WNIDS = ("n01", "n02", "n03")
SMALL = Expectation(3, {"train": 9, "validation": 6}, {"train": (2, 4), "validation": (2, 2)})
# The kit numbers classes otherwise, and numbers inner nodes of WordNet after the leaves.
KIT_IDS = {1: "n03", 2: "n01", 3: "n02"}
TRUTH = (2, 1, 3, 1, 2, 3)


def kit_members():
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")
    rows = [(i, w, f"word {w}", "-", 0, np.zeros(0)) for i, w in KIT_IDS.items()]
    rows.append((4, "n99", "animal", "-", 2, np.array([1, 2])))
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=[(name, "O") for name in fields])})
    truth = "".join(f"{one}\n" for one in TRUTH).encode()
    return {"data/meta.mat": meta.getvalue(), "data/ILSVRC2012_validation_ground_truth.txt": truth}


def train_images():
    return {w: {f"{w}_{i}.JPEG": jpeg(seed=10 * c + i) for i in range(2 + c)} for c, w in enumerate(WNIDS)}


def validation_images():
    return {f"ILSVRC2012_val_{i:08d}.JPEG": jpeg(seed=100 + i) for i in range(1, 7)}


def plant_tars(root):
    inner = {f"{w}.tar": tar_bytes(images) for w, images in reversed(train_images().items())}
    (root / "ILSVRC2012_img_train.tar").write_bytes(tar_bytes(inner))
    (root / "ILSVRC2012_img_val.tar").write_bytes(tar_bytes(dict(reversed(validation_images().items()))))
    kit = tar_bytes({f"ILSVRC2012_devkit_t12/{name}": content for name, content in kit_members().items()})
    (root / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(kit))


def expected_imagenet():
    train = {name[:-5]: (w, data) for w, images in train_images().items() for name, data in images.items()}
    names = zip(validation_images().items(), TRUTH, strict=True)
    return train, {name[:-5]: (KIT_IDS[one], data) for (name, data), one in names}


def test_imagenets_tars_are_read_in_place_with_the_kits_labels(tmp_path):
    plant_tars(tmp_path)
    before = set(os.listdir(tmp_path))
    source = imagenet(tmp_path, workers=2, expected=SMALL)
    train, validation = expected_imagenet()
    assert source.classes == WNIDS
    assert samples(source, "train") == train
    assert samples(source, "validation") == validation
    assert set(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("form", ["flat", "folders"])
def test_imagenets_folder_trees_are_the_same_set(tmp_path, form):
    train, validation = expected_imagenet()
    tree = {f"train/{w}/{key}.JPEG": data for key, (w, data) in train.items()}
    if form == "flat":
        tree |= {f"val/{key}.JPEG": data for key, (_, data) in validation.items()}
        tree |= {f"ILSVRC2012_devkit_t12/{name}": content for name, content in kit_members().items()}
    else:
        tree |= {f"val/{w}/{key}.JPEG": data for key, (w, data) in validation.items()}
    plant(tmp_path, tree)
    source = imagenet(tmp_path, expected=SMALL)
    assert list(samples(source, "train").values()) == list(train.values())
    assert sorted(samples(source, "validation").values()) == sorted(validation.values())


def test_an_incomplete_imagenet_is_refused_with_the_classes_to_blame(tmp_path):
    plant_tars(tmp_path)
    more = Expectation(3, {"train": 9, "validation": 6}, {"train": (3, 4), "validation": (2, 2)})
    with pytest.raises(UserError, match=r"train has 9 images, 3 to 4 a class; found 9 \(n01 has 2\)"):
        imagenet(tmp_path, expected=more)
    total = Expectation(3, {"train": 10, "validation": 6}, {"train": (2, 4), "validation": (2, 2)})
    with pytest.raises(UserError, match=r"found 9 \(fewest: n01 has 2"):
        imagenet(tmp_path, expected=total)
    with pytest.raises(UserError, match="imagenet has 1000 classes, these files have 3: n01, n02, n03"):
        imagenet(tmp_path)


@pytest.mark.parametrize("name", ["ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"])
def test_a_missing_part_of_imagenet_is_named(tmp_path, name):
    plant_tars(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=name):
        imagenet(tmp_path, expected=SMALL)


def test_a_cut_imagenet_tar_is_refused_with_the_offset(tmp_path):
    plant_tars(tmp_path)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 // 512 * 512])
    with pytest.raises(WorkFailed, match=r"img_train\.tar: .* at byte \d+"):
        imagenet(tmp_path, expected=SMALL)


# CIFAR


def plant_cifar(root, name, per_batch=4, changes=()):
    layout = LAYOUTS[name]
    generator = np.random.default_rng(0)
    members, images = {}, {}
    for split, batches in layout.batches.items():
        for batch in batches:
            data = generator.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
            images.setdefault(split, []).append(data)
            content = {b"data": data, layout.labels: [i % 2 for i in range(per_batch)]} | dict(changes)
            members[f"{layout.folder}/{batch}"] = pickle.dumps(content, protocol=2)
    meta = {layout.names: [b"apple", b"boat"]}
    members[f"{layout.folder}/{layout.meta}"] = pickle.dumps(meta, protocol=2)
    (root / layout.archive).write_bytes(gzip.compress(tar_bytes(members)))
    return {split: np.concatenate(parts) for split, parts in images.items()}


@pytest.mark.parametrize(("name", "batches"), [("cifar10", 5), ("cifar100", 1)])
def test_cifars_pixels_are_kept_exactly(tmp_path, name, batches):
    images = plant_cifar(tmp_path, name)
    share = {"train": (2 * batches, 2 * batches), "validation": (2, 2)}
    expected = Expectation(2, {"train": 4 * batches, "validation": 4}, share)
    source = cifar(name, tmp_path, expected)
    assert source.classes == ("apple", "boat")
    for split, rows in images.items():
        assert source.splits[split].label.tolist() == [i % 4 % 2 for i in range(len(rows))]
        for row, image in enumerate(rows):
            payload = source.read(split, row)
            assert np.array_equal(pixels(payload), image.reshape(3, 32, 32).transpose(1, 2, 0))
            assert len(payload) <= source.splits[split].size[row]
    with pytest.raises(UserError, match=r"has 10+ classes, these files have 2"):
        cifar(name, tmp_path)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/evil",)


@pytest.mark.parametrize("value", [Evil(), {b"data": Evil()}, print, Expectation])
def test_a_pickle_that_wants_to_run_something_is_refused(value):
    with pytest.raises(WorkFailed, match="batch is refused: it needs"):
        unpickle(pickle.dumps(value), "batch")


def test_a_damaged_cifar_archive_is_refused(tmp_path):
    plant_cifar(tmp_path, "cifar10", changes={b"data": np.zeros((4, 9))})
    with pytest.raises(WorkFailed, match="not rows of 3,072 bytes"):
        cifar("cifar10", tmp_path)
    path = tmp_path / LAYOUTS["cifar10"].archive
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(WorkFailed, match="is damaged"):
        cifar("cifar10", tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        cifar("cifar10", tmp_path)


# Flowers and pets


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
