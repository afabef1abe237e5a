"""The splits of a config."""

import pytest

from pipeline.config.overrides import compose
from pipeline.data import dataset
from pipeline.data.shards.manifest import Manifest
from pipeline.errors import UserError


def test_the_digits_are_made_once_when_asked_for(tmp_path):
    config = compose(["scale=demo", f"paths.data={tmp_path}"])
    dataset.prepare(config.data)
    train, validation = (dataset.open_split(config.data, split) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (1437, 360)
    first = dataset.fingerprint(config.data)
    written = (tmp_path / "digits" / "train.manifest.json").stat().st_mtime_ns
    dataset.prepare(config.data)
    assert (tmp_path / "digits" / "train.manifest.json").stat().st_mtime_ns == written
    assert dataset.fingerprint(config.data) == first
    swapped = compose(
        ["scale=demo", f"paths.data={tmp_path}", "data.train=validation", "data.validation=train"]
    )
    assert dataset.fingerprint(swapped.data) != first


def test_missing_shards_are_named_with_the_way_out(tmp_path):
    config = compose([f"paths.data={tmp_path}"])
    dataset.prepare(config.data)
    for ask in (lambda: dataset.fingerprint(config.data), lambda: dataset.open_split(config.data, "train")):
        with pytest.raises(UserError, match=r"no train shards at .*imagenet.*shards.py make.*scale=demo"):
            ask()


def test_another_number_of_classes_is_refused(tmp_path):
    config = compose(["scale=demo", f"paths.data={tmp_path}"])
    dataset.prepare(config.data)
    wrong = compose(["scale=demo", f"paths.data={tmp_path}", "data.classes=11"])
    with pytest.raises(UserError, match="10 classes, the config says 11"):
        dataset.open_split(wrong.data, "train")


def test_the_fingerprint_reads_no_index(tmp_path, monkeypatch):
    config = compose(["scale=demo", f"paths.data={tmp_path}"])
    dataset.prepare(config.data)
    monkeypatch.setattr(Manifest, "read", None)
    assert len(dataset.fingerprint(config.data)) == 64
