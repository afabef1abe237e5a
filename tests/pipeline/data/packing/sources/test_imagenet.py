"""ImageNet in the layouts of the published archives."""

import gzip
import io
import os

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.data.packing.sources.imagenet import imagenet
from pipeline.data.packing.sources.source import Expectation
from pipeline.errors import UserError, WorkFailed
from tests.pipeline.data.packing.sources.archived import samples, tar_bytes
from tests.pipeline.pictures import jpeg, plant

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
