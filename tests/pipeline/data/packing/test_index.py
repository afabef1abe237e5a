import io
import json
import tarfile

import pytest

from pipeline.data.packing.index import index, tars_of_splits
from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.folder import folder
from pipeline.data.shards.manifest import Manifest
from pipeline.errors import UserError, WorkFailed
from tests.pipeline.pictures import jpeg, plant_pictures, png, with_stray_bytes


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1234567.25
            archive.addfile(info, io.BytesIO(content))


def payload(manifest, sample):
    data = manifest.path(manifest.shard[sample]).read_bytes()
    return data[manifest.offset[sample] :][: manifest.length[sample]]


@pytest.mark.slow
def test_indexing_a_set_made_here_gives_the_manifest_that_make_wrote(tmp_path):
    plant_pictures(tmp_path / "pictures")
    out = tmp_path / "set"
    made = make(folder(tmp_path / "pictures"), out, Packing(samples_per_shard=8)).manifests
    for path in (*out.glob("*.json"), *out.glob("*.npz")):
        if path.name != "_info.json":
            path.unlink()
    indexed = index(out).manifests
    for split, manifest in made.items():
        assert indexed[split].fingerprint == manifest.fingerprint
        assert Manifest.read(out, split).fingerprint == manifest.fingerprint
    assert make(folder(tmp_path / "pictures"), out, Packing(samples_per_shard=8)).complete_before


def test_tars_written_by_webdataset_are_indexed(tmp_path):
    import webdataset

    images = {f"dir.x/{i:03d}": (jpeg(seed=i) if i % 3 else png(seed=i), i % 4) for i in range(20)}
    pattern = str(tmp_path / "theirs-train-%04d.tar")
    with webdataset.ShardWriter(pattern, maxcount=6, verbose=0) as writer:
        for key, (image, label) in images.items():
            extension = "png" if image.startswith(b"\x89") else "jpg"
            writer.write({"__key__": key, extension: image, "cls": label, "json": {"note": key}})
    outcome = index(tmp_path)
    manifest = Manifest.read(tmp_path, "train")
    assert [shard.samples for shard in manifest.shards] == [6, 6, 6, 2]
    found = {
        key.decode(): (payload(manifest, i), int(manifest.label[i]))
        for i, key in enumerate(manifest.key.tolist())
    }
    assert found == images
    assert manifest.classes == ("0", "1", "2", "3")
    assert outcome.manifests["train"].check_files() == []


def test_labels_are_read_from_cls_txt_and_json(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        [
            ("one.JPEG", jpeg()), ("one.cls", b"2\n"),
            ("two.json", json.dumps({"label": 1, "width": 3}).encode()), ("two.jpg", jpeg(seed=1)),
            ("three.png", png()), ("three.txt", b"0"), ("three.seg.png", b"anything"),
            ("__meta__", b"x"), ("README", b"x"),
        ],
    )  # fmt: skip
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    manifest = index(tmp_path).manifests["train"]
    assert dict(zip(manifest.key.tolist(), manifest.label.tolist(), strict=True)) == {
        b"one": 2,
        b"two": 1,
        b"three": 0,
    }
    assert manifest.classes == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", jpeg())], r"sample 'a' has no label \(cls, txt, json\), at byte"),
        ([("a.cls", b"1")], "sample 'a' has 0 images"),
        ([("a.jpg", jpeg()), ("a.png", png()), ("a.cls", b"1")], "sample 'a' has 2 images"),
        ([("a.jpg", jpeg()), ("a.jpg", jpeg()), ("a.cls", b"1")], r"two members \.jpg"),
        ([("a.jpg", jpeg()), ("a.cls", b"cat")], r"no label of digits in its \.cls"),
        ([("a.jpg", jpeg()), ("a.json", b'{"label": "7"}')], r"no label of digits in its \.json"),
        ([("a.jpg", jpeg()), ("a.json", b"[1")], r"no label of digits in its \.json"),
        ([("a.jpg", jpeg()), ("b.cls", b"1"), ("a.cls", b"1"), ("b.jpg", jpeg())], "'a' has no label"),
        ([("a.jpg", b"zzz"), ("a.cls", b"1")], r"1 damaged images, no index is written: t\.tar: a: "),
        ([("a.jpg", jpeg()), ("a.cls", b"1"), ("b.cls", b"1"), ("b.jpg", jpeg()),
          ("a.jpg", jpeg()), ("a.cls", b"1")], "key 'a' stands for 2 samples"),
    ],
)  # fmt: skip
def test_samples_that_are_incomplete_or_ambiguous_are_refused_by_name(tmp_path, members, message):
    write_tar(tmp_path / "t.tar", members)
    with pytest.raises(UserError, match=message):
        index(tmp_path)
    assert not list(tmp_path.glob("*.manifest.json"))


def test_a_damaged_tar_is_refused_by_name_with_the_offset(tmp_path):
    write_tar(tmp_path / "good-train-0.tar", [("a.jpg", jpeg()), ("a.cls", b"1")])
    members = [(f"{i}.{e}", c) for i in range(5) for e, c in (("jpg", jpeg(seed=i)), ("cls", b"1"))]
    path = tmp_path / "bad-train-1.tar"
    write_tar(path, members)
    sound = path.read_bytes()
    header = sound.index(b"2.jpg")
    for damaged in (sound[:header], sound[:header] + b"\x33" + sound[header + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(WorkFailed, match=r"bad-train-1\.tar: .* at byte \d+"):
            index(tmp_path)
        assert not list(tmp_path.glob("*.manifest.json"))


def test_damaged_images_can_be_left_out_and_odd_ones_are_told(tmp_path):
    members = [("a.jpg", jpeg()), ("a.cls", b"1"), ("b.jpg", jpeg()[:500]), ("b.cls", b"1")]
    write_tar(tmp_path / "t.tar", [*members, ("c.jpg", with_stray_bytes(jpeg())), ("c.cls", b"0")])
    outcome = index(tmp_path, skip_damaged=True)
    assert set(outcome.skipped) == {"t.tar: b"}
    assert set(outcome.flawed) == {"c"}
    assert outcome.manifests["train"].key.tolist() == [b"a", b"c"]


def test_splits_come_from_the_names(tmp_path):
    def splits(*names):
        for path in tmp_path.glob("*.tar"):
            path.unlink()
        for name in names:
            (tmp_path / name).touch()
        return {split: [path.name for path in paths] for split, paths in tars_of_splits(tmp_path).items()}

    assert splits("x-train-0000.tar", "x-validation-00.tar") == {
        "train": ["x-train-0000.tar"],
        "validation": ["x-validation-00.tar"],
    }
    assert set(splits("train_1.tar", "val_1.tar", "test_1.tar")) == {"train", "validation", "test"}
    assert set(splits("train.1.tar", "test.1.tar")) == {"train", "validation"}
    assert splits("00000.tar", "trained.tar") == {"train": ["00000.tar", "trained.tar"]}
    with pytest.raises(UserError, match=r"the name odd\.tar says no split"):
        splits("train-1.tar", "odd.tar")
    with pytest.raises(UserError, match=r"holds no \.tar files"):
        splits()


def test_too_few_class_names_are_refused(tmp_path):
    write_tar(tmp_path / "t.tar", [("a.jpg", jpeg()), ("a.cls", b"5")])
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(UserError, match="labels up to 5 but names for 2 classes"):
        index(tmp_path)
