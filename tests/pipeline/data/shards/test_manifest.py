import dataclasses
import json

import numpy as np
import pytest
import xxhash

from pipeline.data.images.decode import ImageKind
from pipeline.data.shards.manifest import Manifest, Shard, index_path, manifest_path
from pipeline.errors import UserError, WorkFailed

COUNTS = (3, 4)
# The fingerprints that earlier versions gave `made_up`, without and with a repacked set's two columns.
STATED = "08d0d072c9d72ec26a660cf33332bbcf2230673a5c3c760fbca6dce4214f96a7"
STATED_REPACKED = "8ec505c6faee4f3b22b2818d3225dd07c5f6fc72ae2c39df427d05404bef1597"
RESTART_ROWS = {
    "row_start": np.array([0, 2, 2, 4, 4, 4, 4, 4], "<i8"),
    "row_offset": np.array([100, 200, 50, 60], "<u4"),
}
NO_RESTART_ROWS = {"row_start": np.zeros(8, "<i8"), "row_offset": np.zeros(0, "<u4")}


def shards(names, counts=COUNTS):
    return tuple(
        Shard(name, count, 1024 * count + 1024, f"{i:064x}")
        for i, (name, count) in enumerate(zip(names, counts, strict=True))
    )


def made_up(root, **changes):
    """Seven samples in two shards, with the files of the recorded sizes."""
    count = sum(COUNTS)
    place = np.concatenate([np.arange(c) for c in COUNTS])
    fields = {
        "root": root,
        "split": "train",
        "classes": ("cat", "dog", "größe"),
        "shards": tuple(
            Shard(f"t-train-{i}.tar", c, 1024 * c + 1024, f"{i:064x}") for i, c in enumerate(COUNTS)
        ),
        "key": np.array([f"cat/{i:03d}".encode() for i in range(count)]),
        "label": np.arange(count) % 3,
        "shard": np.repeat(np.arange(2), COUNTS),
        "offset": 512 + 1024 * place,
        "length": np.full(count, 300),
        "xxh3": np.arange(count).astype(np.uint64) + 2**63,
        "width": np.full(count, 20),
        "height": np.full(count, 30),
        "kind": np.full(count, ImageKind.JPEG),
    }
    return Manifest(**(fields | changes))


def with_files(root):
    manifest = made_up(root)
    for shard in manifest.shards:
        (root / shard.name).write_bytes(bytes(shard.bytes))
    return manifest


def test_what_is_written_is_read(tmp_path):
    written = made_up(tmp_path)
    written.write()
    read = Manifest.read(str(tmp_path), "train")
    for field in dataclasses.fields(Manifest):
        ours, theirs = getattr(written, field.name), getattr(read, field.name)
        if isinstance(ours, np.ndarray):
            assert ours.dtype == theirs.dtype, field.name
            assert np.array_equal(ours, theirs), field.name
        else:
            assert ours == theirs, field.name
    assert len(read) == 7
    assert read.path(1) == tmp_path / "t-train-1.tar"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.index.npz", "train.manifest.json"]


def test_writing_twice_gives_the_same_bytes(tmp_path):
    made_up(tmp_path).write()
    before = manifest_path(tmp_path, "train").read_bytes(), index_path(tmp_path, "train").read_bytes()
    made_up(tmp_path).write()
    assert before == (
        manifest_path(tmp_path, "train").read_bytes(),
        index_path(tmp_path, "train").read_bytes(),
    )


def test_an_empty_split_is_a_manifest_too(tmp_path):
    none = np.zeros(0)
    empty = Manifest(tmp_path, "train", ("a",), (), *([none] * 9))
    empty.write()
    assert len(Manifest.read(tmp_path, "train")) == 0


def test_the_fingerprint_is_the_datas_not_the_places(tmp_path):
    reference = made_up(tmp_path).fingerprint
    assert made_up(tmp_path / "elsewhere").fingerprint == reference
    wide = made_up(tmp_path).key.astype("S40")
    big_endian = made_up(tmp_path).offset.astype(">i8")
    assert made_up(tmp_path, key=wide, offset=big_endian).fingerprint == reference


@pytest.mark.parametrize(
    "name", [f.name for f in dataclasses.fields(Manifest) if f.init and f.name != "root"]
)
def test_every_field_but_the_place_changes_the_fingerprint(tmp_path, name):
    manifest = made_up(tmp_path)
    changed = {
        "split": "validation",
        "classes": ("cat", "dog", "hen"),
        "shards": (manifest.shards[0], dataclasses.replace(manifest.shards[1], sha256="f" * 64)),
        "key": np.char.add(manifest.key, b"x"),
        "label": (manifest.label + 1) % 3,
        "restart_rows": RESTART_ROWS,
    }
    if name == "shard":
        change = {
            "shard": np.repeat([0, 1], [2, 5]),
            "shards": shards(["t-train-0.tar", "t-train-1.tar"], (2, 5)),
        }
        change["offset"] = 512 + 1024 * np.array([0, 1, 0, 1, 2, 3, 4])
    else:
        change = {name: changed[name] if name in changed else getattr(manifest, name) ^ 1}
    assert made_up(tmp_path, **change).fingerprint != manifest.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": np.arange(6)}, "label has shape"),
        ({"label": np.full(7, 3)}, "labels run from 3 to 3 with 3 classes"),
        ({"label": np.full(7, -1)}, "labels run from -1"),
        ({"shard": np.repeat([0, 1], [4, 3])}, "sample counts"),
        ({"shard": np.repeat([1, 0], [4, 3])}, "sample counts"),
        ({"offset": np.full(7, 512)}, "overlap"),
        ({"offset": np.arange(7) * 1024}, "outside its shard"),
        ({"length": np.full(7, 0)}, "below 1"),
        ({"width": np.full(7, 0)}, "below 1"),
        ({"kind": np.full(7, 99)}, "kind 99"),
        (
            {"shards": tuple(Shard(f"../{i}.tar", c, 9999, "") for i, c in enumerate(COUNTS))},
            "plain file name",
        ),
        ({"shards": shards(["a.tar", "a.tar"])}, "same name"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        made_up(tmp_path, **change)


def test_two_samples_with_one_key_are_not_written(tmp_path):
    with pytest.raises(UserError, match="'same' stands for 7 samples"):
        made_up(tmp_path, key=np.array([b"same"] * 7)).write()
    assert list(tmp_path.iterdir()) == []


def write_as_earlier_versions(root, rows, stated):
    """Manifest and index with the two columns that every index had."""
    made_up(root).write()
    with np.load(index_path(root, "train")) as stored:
        columns = dict(stored)
    np.savez(index_path(root, "train"), **columns, **rows)
    header = json.loads(manifest_path(root, "train").read_text())
    index = xxhash.xxh3_128_hexdigest(index_path(root, "train").read_bytes())
    manifest_path(root, "train").write_text(json.dumps(header | {"index": index, "fingerprint": stated}))


@pytest.mark.parametrize(
    ("rows", "stated"),
    [(NO_RESTART_ROWS, STATED), (RESTART_ROWS, STATED_REPACKED)],
    ids=["plain", "repacked"],
)
def test_manifests_of_earlier_versions_are_read_and_keep_their_fingerprints(tmp_path, rows, stated):
    write_as_earlier_versions(tmp_path, rows, stated)
    read = Manifest.read(tmp_path, "train")
    assert read.fingerprint == stated
    assert read.offset.tolist() == made_up(tmp_path).offset.tolist()
    staged = dataclasses.replace(read, root=tmp_path / "elsewhere")
    staged.root.mkdir()
    staged.write()
    assert Manifest.read(staged.root, "train").fingerprint == stated


def test_a_new_manifest_has_the_fingerprint_that_earlier_versions_gave_it(tmp_path):
    assert made_up(tmp_path).fingerprint == STATED


def test_changed_restart_rows_are_noticed(tmp_path):
    changed = RESTART_ROWS | {"row_offset": np.array([100, 201, 50, 60], "<u4")}
    write_as_earlier_versions(tmp_path, changed, STATED_REPACKED)
    with pytest.raises(WorkFailed, match="does not match its own fingerprint"):
        Manifest.read(tmp_path, "train")


def test_missing_shards_name_the_path_the_command_and_the_demo(tmp_path):
    for root, why in (
        (tmp_path, "validation.manifest.json is missing"),
        (tmp_path / "no", "no such directory"),
    ):
        with pytest.raises(UserError) as raised:
            Manifest.read(root, "validation")
        message = str(raised.value)
        assert "\n" not in message
        for part in (str(root), why, "shards.py make", "shards.py index", "scale=demo"):
            assert part in message


def test_any_flipped_bit_or_cut_of_the_manifests_files_is_noticed(tmp_path):
    made_up(tmp_path).write()
    generator = np.random.default_rng(0)
    for path in (manifest_path(tmp_path, "train"), index_path(tmp_path, "train")):
        sound = path.read_bytes()
        for place in generator.integers(len(sound) * 8, size=300):
            damaged = bytearray(sound)
            damaged[place // 8] ^= 1 << (place % 8)
            path.write_bytes(damaged)
            with pytest.raises(UserError, match=r"manifest\.json|index\.npz"):
                Manifest.read(tmp_path, "train")
        for end in generator.integers(len(sound) - 1, size=30):
            path.write_bytes(sound[:end])
            with pytest.raises(WorkFailed, match=path.name):
                Manifest.read(tmp_path, "train")
        path.write_bytes(sound)
    Manifest.read(tmp_path, "train")


def test_manifests_of_other_formats_and_swapped_indexes_are_refused(tmp_path):
    made_up(tmp_path).write()
    path = manifest_path(tmp_path, "train")
    header = json.loads(path.read_text())
    path.write_text(json.dumps(header | {"format": 99}))
    with pytest.raises(UserError, match=f"{path.name} is damaged .*of format 1"):
        Manifest.read(tmp_path, "train")
    path.write_text(json.dumps(header))
    other = tmp_path / "other"
    other.mkdir()
    made_up(other, label=np.zeros(7)).write()
    index_path(other, "train").rename(index_path(tmp_path, "train"))
    with pytest.raises(WorkFailed, match=r"index\.npz is damaged"):
        Manifest.read(tmp_path, "train")
    index_path(tmp_path, "train").unlink()
    with pytest.raises(WorkFailed, match="missing"):
        Manifest.read(tmp_path, "train")


def test_check_files_names_what_is_missing_short_or_long(tmp_path):
    manifest = with_files(tmp_path)
    assert manifest.check_files() == []
    first, second = (tmp_path / shard.name for shard in manifest.shards)
    first.unlink()
    second.write_bytes(bytes(manifest.shards[1].bytes - 1))
    assert manifest.check_files() == [
        "t-train-0.tar is missing",
        "t-train-1.tar is short: 5119 bytes where 5120 are recorded",
    ]
    second.write_bytes(bytes(manifest.shards[1].bytes + 1))
    assert "t-train-1.tar is long" in manifest.check_files()[1]
