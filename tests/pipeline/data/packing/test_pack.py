import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.data.images.decode import ImageKind
from pipeline.data.packing.pack import MAX_SHARD_BYTES, Packing, make, plan_shards
from pipeline.data.packing.sources.folder import folder
from pipeline.data.packing.sources.source import Source, listing
from pipeline.data.shards.manifest import Manifest
from pipeline.data.shards.tar import scan_file
from pipeline.errors import UserError, WorkFailed
from tests.pipeline.pictures import jpeg, pixels, plant_pictures

PACKING = Packing(samples_per_shard=8, workers=2)


@pytest.fixture
def source(tmp_path):
    plant_pictures(tmp_path / "pictures")
    return folder(tmp_path / "pictures")


def files(root):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.iterdir()}


def payload(manifest, sample):
    with open(manifest.path(manifest.shard[sample]), "rb") as file:
        return os.pread(file.fileno(), manifest.length[sample], manifest.offset[sample])


def test_every_file_is_in_the_shards_once_with_its_bytes_label_and_place(source, tmp_path):
    out = tmp_path / "set"
    make(source, out, PACKING)
    for split in ("train", "validation"):
        manifest = Manifest.read(out, split)
        rows = source.splits[split]
        wanted = {key: (label, source.read(split, i)) for i, (key, label) in
                  enumerate(zip(rows.key.tolist(), rows.label.tolist(), strict=True))}  # fmt: skip
        found = {
            key: (label, payload(manifest, i))
            for i, (key, label) in enumerate(zip(manifest.key.tolist(), manifest.label.tolist(), strict=True))
        }
        assert found == wanted
        assert len(manifest) == len(wanted)
        assert manifest.check_files() == []
        assert manifest.classes == ("cat", "dog")
        for i in range(len(manifest)):
            assert manifest.is_sound(i, payload(manifest, i))
            assert pixels(payload(manifest, i)).shape == (manifest.height[i], manifest.width[i], 3)
        for shard in manifest.shards:
            data = (out / shard.name).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
            assert sum(m.name.endswith(b".cls") for m in scan_file(out / shard.name)) == shard.samples


def test_odd_files_are_marked_with_the_decoder_they_need(source, tmp_path):
    outcome = make(source, tmp_path / "set", PACKING)
    manifest = outcome.manifests["train"]
    kinds = {key.decode(): ImageKind(kind) for key, kind in zip(manifest.key, manifest.kind, strict=True)}
    odd = {key: kind for key, kind in kinds.items() if kind != ImageKind.JPEG}
    assert odd == {
        "cat/progressive": ImageKind.PROGRESSIVE,
        "cat/grey": ImageKind.GREY,
        "dog/cmyk": ImageKind.CMYK,
        "dog/really_png": ImageKind.PNG,
        "dog/stray": ImageKind.OTHER,
    }
    assert set(outcome.flawed) == {"dog/stray"}
    assert outcome.turned == 1
    names = {m.name.decode() for path in (tmp_path / "set").glob("*.tar") for m in scan_file(path)}
    assert {"dog/really_png.png", "dog/stray.jpg", "dog/stray.cls"} <= names


@pytest.mark.slow
def test_the_same_source_and_seed_give_the_same_bytes_whatever_the_workers(source, tmp_path):
    for place, workers in (("a", 1), ("b", 3)):
        make(source, tmp_path / place, Packing(samples_per_shard=8, workers=workers))
    assert files(tmp_path / "a") == files(tmp_path / "b")
    make(source, tmp_path / "c", Packing(seed=1, samples_per_shard=8))
    one, other = (Manifest.read(tmp_path / place, "train") for place in "ac")
    assert sorted(one.key) == sorted(other.key)
    assert one.key.tolist() != other.key.tolist()
    assert one.fingerprint != other.fingerprint


def listed(sizes):
    rows = listing([f"k{i}" for i in range(len(sizes))], [0] * len(sizes), sizes)
    return Source("x", ("a",), {"train": rows}, lambda split, row: b"")


def test_shards_are_equal_and_stay_below_their_size():
    generator = np.random.default_rng(0)
    source = listed(generator.integers(1000, 3_000_000, 2000))
    plan = plan_shards(source, Packing())
    counts = [len(shard.samples) for shard in plan.shards]
    assert max(counts) - min(counts) <= 1
    assert sorted(np.concatenate([shard.samples for shard in plan.shards])) == list(range(2000))
    rows = source.splits["train"]
    exact = [
        sum(1536 + -(-int(s) // 512) * 512 for s in rows.size[shard.samples]) + 1024 for shard in plan.shards
    ]
    assert max(exact) <= MAX_SHARD_BYTES
    assert len(exact) <= 1.2 * sum(exact) / MAX_SHARD_BYTES + 1
    assert sum(exact) == plan.bytes
    assert [shard.name for shard in plan.shards][:2] == ["x-train-0000.tar", "x-train-0001.tar"]


def test_the_shuffle_spreads_classes_over_shards(source):
    plan = plan_shards(source, PACKING)
    labels = source.splits["train"].label
    train = [shard for shard in plan.shards if shard.split == "train"]
    assert all(len(set(labels[shard.samples].tolist())) == 2 for shard in train)


def test_timm_finds_the_splits_in_info_json(source, tmp_path):
    make(source, tmp_path / "set", PACKING)
    info = json.loads((tmp_path / "set/_info.json").read_text())
    train = info["splits"]["train"]
    assert train["num_samples"] == sum(train["shard_lengths"]) == 28
    assert [Path(name).name for name in train["filenames"]] == train["filenames"]
    assert info["splits"]["validation"]["num_samples"] == 10


@pytest.mark.slow
def test_damaged_files_are_named_and_nothing_is_published(source, tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "set"
    (pictures / "train/cat/03.jpg").write_bytes(jpeg(100, 80)[:900])
    (pictures / "train/dog/04.jpg").write_bytes(b"no image")
    with pytest.raises(WorkFailed) as raised:
        make(folder(pictures), out, PACKING)
    message = str(raised.value)
    assert "2 damaged files, nothing is published" in message
    assert "cat/03: " in message
    assert "dog/04: " in message
    assert "\n" not in message
    assert [path.name for path in out.iterdir()] == [".make"]


@pytest.mark.slow
def test_skipping_damaged_files_names_them_and_keeps_the_rest(source, tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "set"
    (pictures / "train/cat/03.jpg").write_bytes(b"")
    outcome = make(folder(pictures), out, Packing(samples_per_shard=8, skip_damaged=True))
    assert set(outcome.skipped) == {"cat/03"}
    manifest = Manifest.read(out, "train")
    assert len(manifest) == 27
    assert b"cat/03" not in manifest.key.tolist()


@pytest.mark.slow
def test_a_replaced_damaged_file_lets_the_same_command_finish(source, tmp_path):
    pictures, out = tmp_path / "pictures", tmp_path / "set"
    sound = (pictures / "train/cat/03.jpg").read_bytes()
    (pictures / "train/cat/03.jpg").write_bytes(sound[:900])
    with pytest.raises(WorkFailed):
        make(folder(pictures), out, PACKING)
    journals = list((out / ".make").glob("*.journal"))
    finished = {path.stem: path.with_suffix("").stat().st_mtime_ns for path in journals}
    assert len(finished) == len(list((out / ".make").glob("*.tar"))) - 1
    (pictures / "train/cat/03.jpg").write_bytes(sound)
    make(folder(pictures), out, PACKING)
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == finished
    make(source, tmp_path / "undisturbed", PACKING)
    assert files(out) == files(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["flush_directory", "write_info"])
def test_a_make_stopped_while_it_publishes_completes(source, tmp_path, monkeypatch, step):
    from pipeline.data.packing import build

    def stop(*arguments):
        raise KeyboardInterrupt

    out = tmp_path / "set"
    with monkeypatch.context() as patched:
        patched.setattr(build, step, stop)
        with pytest.raises(KeyboardInterrupt):
            make(source, out, PACKING)
    assert not list(out.glob("*.manifest.json"))
    times = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    make(source, out, PACKING)
    make(source, tmp_path / "undisturbed", PACKING)
    assert files(out) == files(tmp_path / "undisturbed")
    assert {name: (out / name).stat().st_mtime_ns for name in times} == times


def test_a_complete_set_is_left_alone(source, tmp_path):
    out = tmp_path / "set"
    assert not make(source, out, PACKING).complete_before
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert make(source, out, PACKING).complete_before
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


@pytest.mark.slow
def test_a_lost_or_cut_shard_is_written_again_with_the_same_bytes(source, tmp_path):
    out = tmp_path / "set"
    make(source, out, PACKING)
    before = files(out)
    shards = sorted(out.glob("*train*.tar"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-512])
    untouched = shards[2].stat().st_mtime_ns
    assert not make(source, out, PACKING).complete_before
    assert files(out) == before
    assert shards[2].stat().st_mtime_ns == untouched


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, r"another seed \(0, now 5\)"),
        ({"samples_per_shard": 5}, "another number of samples per shard"),
    ],
)
def test_another_plan_never_overwrites_a_set(source, tmp_path, change, message):
    out = tmp_path / "set"
    make(source, out, PACKING)
    before = files(out)
    with pytest.raises(UserError, match=message):
        make(source, out, Packing(**({"samples_per_shard": 8} | change)))
    assert files(out) == before


def test_foreign_tars_are_never_mixed_with_a_new_set(source, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/other.tar").write_bytes(b"x")
    with pytest.raises(UserError, match="already holds shards: choose another directory"):
        make(source, tmp_path / "set", PACKING)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["other.tar"]


def test_too_little_space_is_told_before_anything_is_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"has 1,000 bytes free; the set needs up to"):
        make(source, tmp_path / "set", PACKING)
    assert not list(tmp_path.glob("set/**/*.tar"))


# Other readers


def wanted_samples(source, split):
    rows = source.splits[split]
    return {k.decode(): (source.read(split, i), label) for i, (k, label) in
            enumerate(zip(rows.key.tolist(), rows.label.tolist(), strict=True))}  # fmt: skip


def test_plain_webdataset_reads_the_shards(source, tmp_path):
    import webdataset

    make(source, tmp_path / "set", PACKING)
    urls = [str(path) for path in sorted((tmp_path / "set").glob("*train*.tar"))]
    found = {}
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        image = sample.get("jpg") or sample["png"]
        found[sample["__key__"]] = (image, int(sample["cls"]))
    assert found == wanted_samples(source, "train")
    decoded = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("jpg;png", "cls")
    assert sorted(label for _, label in decoded) == sorted(source.splits["train"].label.tolist())


@pytest.mark.parametrize("split", ["train", "validation"])
def test_timms_reader_reads_the_shards(source, tmp_path, split):
    import timm.data

    make(source, tmp_path / "set", PACKING)
    dataset = timm.data.create_dataset(
        "wds/set", root=str(tmp_path / "set"), split=split, batch_size=1, is_training=False
    )
    found = [(np.asarray(image).tobytes(), label) for image, label in dataset]
    wanted = [(pixels(data).tobytes(), label) for data, label in wanted_samples(source, split).values()]
    assert len(dataset) == len(wanted)
    assert sorted(found) == sorted(wanted)


@pytest.mark.slow
def test_plain_tar_lists_image_then_label(source, tmp_path):
    make(source, tmp_path / "set", PACKING)
    data = (tmp_path / "set/pictures-validation-00.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
    stems = [name.removesuffix(".jpg") for name in names[::2]]
    assert names[1::2] == [f"{stem}.cls" for stem in stems]
