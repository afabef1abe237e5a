"""Streaming the same tars through webdataset."""

import dataclasses
import json
import logging
import tarfile

import numpy as np
import pytest

from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.loading.batch import MicroBatch
from pipeline.data.loading.sampler import Sampling
from pipeline.data.loading.stream import Stream, StreamLoader, stream_of
from pipeline.errors import UserError, WorkFailed
from tests.pipeline.packed import SMALL, copied

SAMPLING = Sampling(seed=5, global_batch=192, repeats=3)


@pytest.fixture(autouse=True)
def security(monkeypatch):
    """Without workers the loader makes webdataset secure in this process; other tests open files with it."""
    import webdataset

    monkeypatch.setattr(webdataset.utils, "enforce_security", webdataset.utils.enforce_security)
    monkeypatch.setenv("WDS_SECURE", "0")


@pytest.fixture
def stream(digits):
    return stream_of(digits.root, "train")


def rank_batches(stream, rank, world, workers, **settings):
    how = {"sampling": SAMPLING, "augmentation": SMALL} | settings
    loader = StreamLoader(stream, rank=rank, world=world, workers=workers, **how)
    return list(loader)


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (2, 0), (2, 2)])
def test_every_rank_gets_the_same_number_of_whole_batches_and_each_position_once(stream, world, workers):
    positions = []
    for rank in range(world):
        batches = rank_batches(stream, rank, world, workers)
        assert [batch.step for batch in batches] == list(range(1280 // 192))
        for batch in batches:
            assert isinstance(batch, MicroBatch)
            assert batch.images.shape == (192 // world, 16, 16, 3)
            assert batch.last
            positions.append(batch.position)
    assert np.array_equal(np.sort(np.concatenate(positions)), np.arange(6 * 192))


def test_images_stand_with_their_labels_and_repeats_follow_each_other(stream, digits):
    """Without augmentation a view names its sample by its pixels."""
    import io

    from PIL import Image

    plain = Augmentation(image_size=24, scale=(1, 1), ratio=(1, 1), flip=0, randaugment="", mixup=0, cutmix=0)
    label = {}
    for sample in range(len(digits)):
        data = digits.path(digits.shard[sample]).read_bytes()[digits.offset[sample] :][
            : digits.length[sample]
        ]
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        label[sample] = (pixels, digits.label[sample])
    known = np.stack([pixels for pixels, _ in label.values()])
    batch = rank_batches(stream, 0, 1, 0, augmentation=plain)[0]
    seen = []
    for image, own in zip(batch.images.numpy()[:24], batch.labels.tolist(), strict=False):
        sample = int(np.abs(known - image).max((1, 2, 3)).argmin())
        assert np.abs(known[sample] - image).max() <= 2
        assert digits.label[sample] == own
        seen.append(sample)
    assert (np.reshape(seen, (-1, 3)) == np.reshape(seen, (-1, 3))[:, :1]).all()
    assert len(set(seen)) == 8


def test_an_epoch_of_one_worker_leaves_out_no_more_than_the_incomplete_batch(stream, digits):
    once = Sampling(seed=5, global_batch=8, repeats=1)
    plain = Augmentation(image_size=24, scale=(1, 1), ratio=(1, 1), flip=0, randaugment="", mixup=0, cutmix=0)
    labels = np.concatenate(
        [batch.labels for batch in rank_batches(stream, 0, 1, 0, sampling=once, augmentation=plain)]
    )
    assert len(labels) == 1437 // 8 * 8
    assert (np.bincount(digits.label) - np.bincount(labels)).sum() == 1437 % 8
    assert (np.bincount(digits.label) >= np.bincount(labels)).all()


@pytest.mark.slow
def test_the_same_ranks_and_workers_see_the_same_pixels_and_epochs_differ(stream):
    first = rank_batches(stream, 0, 1, 2)
    again = rank_batches(stream, 0, 1, 2)
    assert all(np.array_equal(a.images, b.images) for a, b in zip(first, again, strict=True))
    loader = StreamLoader(stream, SAMPLING, SMALL, workers=2)
    loader.load_state(loader.state() | {"epoch": 1})
    assert not np.array_equal(next(iter(loader)).labels, first[0].labels)


def test_micro_batches_cut_the_steps_of_a_rank(stream):
    batches = rank_batches(stream, 1, 2, 0, micro_batch=32)
    assert [(batch.step, batch.last) for batch in batches[:4]] == [
        (0, False),
        (0, False),
        (0, True),
        (1, False),
    ]
    assert batches[1].position.tolist() == list(range(96 + 32, 96 + 64))


def test_what_it_cannot_promise_is_said_once(stream, caplog):
    with caplog.at_level(logging.WARNING):
        for rank in range(2):
            StreamLoader(stream, SAMPLING, SMALL, rank=rank, world=2, workers=1)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "only from the beginning of an epoch" in said[0]


def test_going_on_within_an_epoch_is_refused_by_name(stream):
    loader = StreamLoader(stream, SAMPLING, SMALL, workers=0)
    batches = iter(loader)
    next(batches)
    state = loader.state()
    assert state["step"] == 1
    with pytest.raises(
        UserError, match=r"data.reader=webdataset cannot go on within an epoch \(epoch 0, step 1\)"
    ):
        StreamLoader(stream, SAMPLING, SMALL, workers=0).load_state(state)
    with pytest.raises(UserError, match="within an epoch"):
        next(iter(loader))


def test_a_state_of_other_shards_or_of_the_indexed_reader_is_refused(stream):
    loader = StreamLoader(stream, SAMPLING, SMALL, workers=0)
    with pytest.raises(UserError, match=r"data\.reader=indexed"):
        loader.load_state({"format": 1, "epoch": 0, "step": 0})
    other = StreamLoader(dataclasses.replace(stream, urls=stream.urls[::-1]), SAMPLING, SMALL, workers=0)
    with pytest.raises(UserError, match="the shards changed"):
        other.load_state(loader.state())


@pytest.mark.parametrize("url", ["pipe:touch canary", "PIPE:touch canary", "ftp://x/y.tar", "python:os"])
def test_urls_that_could_run_something_are_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="unknown kind of shard URL"):
        Stream((url,), (1000,))
    assert not (tmp_path / "canary").exists()


def test_webdataset_itself_is_in_secure_mode(stream, tmp_path, monkeypatch):
    import webdataset

    monkeypatch.chdir(tmp_path)
    rank_batches(stream, 0, 1, 0)
    with pytest.raises(ValueError, match="pipe"):
        list(webdataset.WebDataset("pipe:touch canary", shardshuffle=False))
    assert not (tmp_path / "canary").exists()


def test_a_shard_that_webdataset_silently_cuts_short_is_noticed(digits, tmp_path):
    spare = copied(digits, tmp_path / "copy")
    data = bytearray(spare.path(4).read_bytes())
    data[data.find(b"ustar", len(data) // 2) - 200] ^= 1
    spare.path(4).write_bytes(data)
    with pytest.raises(WorkFailed, match=rf"{spare.shards[4].name} gave \d+ samples where 180 are recorded"):
        rank_batches(stream_of(spare.root, "train"), 0, 1, 0)


@pytest.mark.slow
def test_an_image_that_cannot_be_decoded_is_named_and_replaced_and_many_stop_the_run(
    digits, tmp_path, caplog
):
    spare = copied(digits, tmp_path / "copy")

    def spoil(sample):
        with open(spare.path(spare.shard[sample]), "r+b") as file:
            file.seek(int(spare.offset[sample]))
            file.write(bytes(int(spare.length[sample])))

    once = Sampling(seed=5, global_batch=8, repeats=1)
    spoil(700)
    batches = rank_batches(stream_of(spare.root, "train"), 0, 1, 0, sampling=once)
    assert len(batches) == 1437 // 8
    assert spare.key[700].decode() in caplog.text
    spoil(900)
    with pytest.raises(WorkFailed, match="the limit is 1"):
        rank_batches(stream_of(spare.root, "train"), 0, 1, 0, sampling=once)


def test_a_sample_without_label_or_image_is_the_users_error(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in (f"{sample}.{end}" for sample in range(192) for end in ("txt", "cls")):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(UserError, match=r"'\d+' of .*x.tar has no image"):
        rank_batches(Stream((str(tmp_path / "x.tar"),), (192,)), 0, 1, 0)


def test_a_set_without_counts_is_refused_with_what_would_help(digits, tmp_path):
    with pytest.raises(UserError, match="index them"):
        stream_of(tmp_path, "train")
    spare = copied(digits, tmp_path / "copy")
    (spare.root / "train.manifest.json").unlink()
    assert stream_of(spare.root, "train").counts == stream_of(digits.root, "train").counts


def test_more_workers_than_shards_are_refused_with_the_number_that_works(stream):
    with pytest.raises(UserError, match="set workers to 4"):
        StreamLoader(stream, SAMPLING, SMALL, world=2, workers=5)


@pytest.mark.parametrize(
    ("splits", "problem"),
    [
        ([], "index them"),
        ({"train": {"filenames": ["a.tar"]}}, "shard_lengths is missing"),
        ({"train": {"filenames": "a.tar", "shard_lengths": [1]}}, "splits.train.filenames is text"),
        ({"train": {"filenames": ["a.tar"], "shard_lengths": ["1"]}}, r"shard_lengths\[0\] is text"),
    ],
)
def test_a_list_of_splits_that_says_nothing_usable_is_refused(tmp_path, splits, problem):
    (tmp_path / "_info.json").write_text(json.dumps({"splits": splits}))
    with pytest.raises((UserError, WorkFailed), match=problem):
        stream_of(tmp_path, "train")
