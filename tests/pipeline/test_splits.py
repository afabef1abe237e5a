"""The splits of a config."""

import pytest

from pipeline import splits
from pipeline.config import compose
from pipeline.errors import UserError
from pipeline.manifest import Manifest


def test_the_digits_are_made_once_when_asked_for(tmp_path):
    config = compose(["scale=demo", f"paths.data={tmp_path}"])
    splits.prepare(config)
    train, validation = (splits.open_split(config.data, split) for split in ("train", "validation"))
    assert (len(train), len(validation)) == (1437, 360)
    first = splits.fingerprint(config.data)
    written = (tmp_path / "digits" / "train.manifest.json").stat().st_mtime_ns
    splits.prepare(config)
    assert (tmp_path / "digits" / "train.manifest.json").stat().st_mtime_ns == written
    assert splits.fingerprint(config.data) == first
    swapped = compose(
        ["scale=demo", f"paths.data={tmp_path}", "data.train=validation", "data.validation=train"]
    )
    assert splits.fingerprint(swapped.data) != first


def test_missing_shards_are_named_with_the_way_out(tmp_path):
    config = compose([f"paths.data={tmp_path}"])
    splits.prepare(config)
    for ask in (lambda: splits.fingerprint(config.data), lambda: splits.open_split(config.data, "train")):
        with pytest.raises(UserError, match=r"no train shards at .*imagenet.*shards.py make.*scale=demo"):
            ask()


def test_another_number_of_classes_is_refused(tmp_path):
    config = compose(["scale=demo", f"paths.data={tmp_path}"])
    splits.prepare(config)
    wrong = compose(["scale=demo", f"paths.data={tmp_path}", "data.classes=11"])
    with pytest.raises(UserError, match="10 classes, the config says 11"):
        splits.open_split(wrong.data, "train")


def test_the_fingerprint_reads_no_index(tmp_path, monkeypatch):
    config = compose(["scale=demo", f"paths.data={tmp_path}"])
    splits.prepare(config)
    monkeypatch.setattr(Manifest, "read", None)
    assert len(splits.fingerprint(config.data)) == 64
