import numpy as np
import pytest

from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.folder import folder
from pipeline.data.packing.verify import verify, verify_shard
from pipeline.data.shards.tar import ArchiveDamage, scan_file
from pipeline.errors import UserError
from tests.pipeline.pictures import plant_pictures


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A set's manifest, and its shards' sound bytes."""
    root = tmp_path_factory.mktemp("verification")
    plant_pictures(root / "pictures")
    manifest = make(folder(root / "pictures"), root / "set", Packing(samples_per_shard=7)).manifests["train"]
    return manifest, [manifest.path(i).read_bytes() for i in range(len(manifest.shards))]


@pytest.fixture
def train(whole):
    manifest, sound = whole
    yield manifest, sound
    for index, data in enumerate(sound):
        manifest.path(index).write_bytes(data)


@pytest.mark.slow
def test_an_undamaged_set_passes(train):
    assert verify(train[0].root) == []


def damage(kind, manifest, sound, generator):
    """Damages one shard; (shard, the keys of exactly the samples that suffered, or None where any may)."""
    shard = int(generator.integers(len(sound)))
    path, data = manifest.path(shard), bytearray(sound[shard])
    keys = [manifest.key[row].decode() for row in np.flatnonzero(manifest.shard == shard)]
    if kind == "payload":
        row = generator.choice(np.flatnonzero(manifest.shard == shard))
        place = int(manifest.offset[row] + generator.integers(manifest.length[row]))
        data[place] ^= 1 << generator.integers(8)
        path.write_bytes(data)
        return shard, [manifest.key[row].decode()]
    if kind == "header":
        member = list(scan_file(path))[generator.integers(2 * len(keys))]
        data[member.offset - 512 + generator.integers(512)] ^= 1 << generator.integers(8)
        path.write_bytes(data)
        return shard, []
    if kind == "cut":
        path.write_bytes(data[: generator.integers(len(data))])
    elif kind == "cut at a block":
        path.write_bytes(data[: generator.integers(len(data) // 512) * 512])
    elif kind == "zeroed":
        start = generator.integers(len(data) // 512) * 512
        end = start + 512 * generator.integers(1, 17)
        data[start:end] = bytes(len(data[start:end]))
        path.write_bytes(data)
    elif kind == "swapped":
        path.write_bytes(sound[(shard + 1) % len(sound)])
    else:
        path.unlink()
        return shard, keys
    return shard, None


KINDS = ("payload", "header", "cut", "cut at a block", "zeroed", "swapped", "missing")


@pytest.mark.slow
def test_a_thousand_random_damages_are_all_noticed_and_named(train):
    manifest, sound = train
    generator = np.random.default_rng(0)
    for trial in range(1000):
        kind = KINDS[trial % len(KINDS)]
        shard, suffered = damage(kind, manifest, sound, generator)
        unchanged = manifest.path(shard).exists() and manifest.path(shard).read_bytes() == sound[shard]
        found = verify_shard(manifest, shard)
        # Zeroing blocks that were empty already is no damage.
        assert (found is None) == unchanged, (trial, kind)
        if found is not None:
            assert manifest.shards[shard].name in str(found)
            if suffered is not None:
                assert list(found.samples) == suffered, (trial, kind)
        if kind in ("cut", "cut at a block", "missing"):
            assert manifest.shards[shard].name in manifest.check_files()[0]
        manifest.path(shard).write_bytes(sound[shard])


def test_a_damaged_header_is_found_by_the_scan_at_its_place(train):
    manifest, sound = train
    generator = np.random.default_rng(1)
    for _ in range(100):
        shard, _ = damage("header", manifest, sound, generator)
        with pytest.raises(ArchiveDamage, match=manifest.shards[shard].name):
            list(scan_file(manifest.path(shard)))
        manifest.path(shard).write_bytes(sound[shard])


@pytest.mark.slow
def test_all_damage_of_a_set_is_listed_with_shards_and_samples(train):
    manifest, sound = train
    first, second, third = (manifest.path(i) for i in range(3))
    row = int(np.flatnonzero(manifest.shard == 0)[2])
    data = bytearray(sound[0])
    data[int(manifest.offset[row]) + 30] ^= 4
    first.write_bytes(data)
    label = bytearray(sound[1])
    place = next(m.offset for m in scan_file(second) if m.name.endswith(b".cls"))
    label[place] ^= 1
    second.write_bytes(label)
    third.write_bytes(sound[2][:-1024])
    found = [str(one) for one in verify(manifest.root, workers=2)]
    names = [shard.name for shard in manifest.shards]
    key = manifest.key[row].decode()
    assert found[0] == f"{names[0]}: its bytes are not the recorded ones; damaged samples: {key}"
    assert found[1] == f"{names[1]}: its bytes are not the recorded ones; no image in it is damaged"
    assert found[2].startswith(
        f"{names[2]}: it has {len(sound[2]) - 1024:,} bytes where {len(sound[2]):,} are"
    )
    assert len(found) == 3


def test_a_directory_without_a_manifest_is_told_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"shards\.py index"):
        verify(tmp_path)
