"""CIFAR in the layout of the published archives."""

import gzip
import os
import pickle

import numpy as np
import pytest

from pipeline.data.packing.sources.cifar import LAYOUTS, cifar, unpickle
from pipeline.data.packing.sources.source import Expectation
from pipeline.errors import UserError, WorkFailed
from tests.pipeline.data.packing.sources.archived import tar_bytes
from tests.pipeline.pictures import pixels


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
    layout = LAYOUTS["cifar10"]
    plant_cifar(tmp_path, "cifar10", changes={layout.labels: [0, 1, 10**5000, 1]})
    with pytest.raises(WorkFailed, match="label 2 of train is not one of 0 to 1"):
        cifar("cifar10", tmp_path)
    path = tmp_path / LAYOUTS["cifar10"].archive
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(WorkFailed, match="is damaged"):
        cifar("cifar10", tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        cifar("cifar10", tmp_path)
