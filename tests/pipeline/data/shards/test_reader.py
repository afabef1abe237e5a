"""Reading of payloads, and a thousand ways to damage what is read."""

import collections
import hashlib
import os
import random

import numpy as np
import pytest

from pipeline.data.shards import reader
from pipeline.data.shards.reader import ShardFiles, Unreadable
from tests.pipeline.packed import copied, overwrite


@pytest.fixture
def spare(digits, tmp_path):
    return copied(digits, tmp_path / "copy")


def files(manifest, pauses=()):
    return ShardFiles(manifest.root, [shard.name for shard in manifest.shards], pauses)


def where(manifest, sample):
    columns = (manifest.shard, manifest.offset, manifest.length, manifest.xxh3)
    return tuple(int(column[sample]) for column in columns)


def payload(manifest, sample):
    shard, offset, length, _ = where(manifest, sample)
    return manifest.path(shard).read_bytes()[offset : offset + length]


def test_payloads_are_read_from_their_places(digits):
    opened = files(digits)
    for sample in (0, 700, 1436, 3):
        assert bytes(opened.read(*where(digits, sample))) == payload(digits, sample)
    opened.close()


def test_a_payload_larger_than_any_before_is_read_whole(tmp_path):
    data = os.urandom(1 << 20)
    (tmp_path / "one.tar").write_bytes(b"before" + data)
    opened = ShardFiles(tmp_path, ["one.tar"], ())
    import xxhash

    assert opened.read(0, 6, len(data), xxhash.xxh3_64_intdigest(data)) == data


def test_a_read_that_fails_for_a_moment_is_repeated_with_a_fresh_open(spare, monkeypatch):
    opened, tries = files(spare, pauses=(0.0, 0.0)), collections.Counter()
    plain_open, plain_read = os.open, os.preadv

    def flaky(file, buffers, offset):
        tries["read"] += 1
        if tries["read"] == 1:
            raise OSError(5, "Input/output error")
        if tries["read"] == 2:
            return 0
        return plain_read(file, buffers, offset)

    def counted(*arguments):
        tries["open"] += 1
        return plain_open(*arguments)

    monkeypatch.setattr(os, "preadv", flaky)
    monkeypatch.setattr(os, "open", counted)
    assert bytes(opened.read(*where(spare, 5))) == payload(spare, 5)
    assert tries["open"] == 3


def test_a_shard_that_was_replaced_by_a_good_copy_is_read_from_the_copy(spare, digits, monkeypatch):
    opened = files(spare, pauses=(1.0,))
    overwrite(spare, 5)
    good = digits.path(0).read_bytes()

    def mend(_):
        (spare.root / "good").write_bytes(good)
        os.replace(spare.root / "good", spare.path(0))

    monkeypatch.setattr(reader.time, "sleep", mend)
    assert bytes(opened.read(*where(spare, 5))) == payload(digits, 5)


def test_no_more_files_are_open_than_allowed(digits, monkeypatch):
    monkeypatch.setattr(reader, "OPEN_FILES", 2)
    opened = files(digits)
    before = len(os.listdir("/proc/self/fd"))
    for sample in (0, 600, 1400, 1, 601, 1401):
        opened.read(*where(digits, sample))
        assert len(os.listdir("/proc/self/fd")) <= before + 2
    opened.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("spoil", ["remove", "cut", "change"])
def test_what_is_wrong_names_the_shard(spare, spoil):
    path = spare.path(spare.shard[600])
    if spoil == "remove":
        path.unlink()
    elif spoil == "cut":
        os.truncate(path, 1000)
    else:
        overwrite(spare, 600)
    said = {"remove": "cannot be read: No such file", "cut": "ends early", "change": "another hash"}[spoil]
    with pytest.raises(Unreadable, match=f"{path.name} .*{said}"):
        files(spare).read(*where(spare, 600))


def flip(data, draw):
    at = draw.randrange(len(data))
    data[at] ^= 1 << draw.randrange(8)


def flip_header(data, draw):
    """Within the first member header after a random place, where tar readers stop without a word."""
    at = data.find(b"ustar", draw.randrange(len(data) - 20_000)) - 257
    data[at + draw.randrange(512)] ^= 1 << draw.randrange(8)


def truncate(data, draw):
    del data[draw.randrange(len(data)) :]


def truncate_between_members(data, draw):
    del data[draw.randrange(len(data)) // 512 * 512 :]


def zero(data, draw):
    size = draw.choice([512, 4096, 8192])
    at = draw.randrange(len(data) - size)
    data[at : at + size] = bytes(size)


def swap_blocks(data, draw):
    one, other = sorted(draw.sample(range(len(data) // 4096), 2))
    a, b = one * 4096, other * 4096
    data[a : a + 4096], data[b : b + 4096] = data[b : b + 4096], data[a : a + 4096]


def remove(data, draw):
    data[:] = b"gone"


def other_shard(data, draw):
    data[:] = b"swap"


DAMAGES = [flip, flip_header, truncate, truncate_between_members, zero, swap_blocks, remove, other_shard]


@pytest.mark.slow
def test_a_thousand_random_damages_are_noticed_and_no_sample_is_lost_unseen(spare):
    """Whatever is read is what was packed, every other sample is refused by name, and together they are all.

    Damage that touches no payload (a tar header, a label file, padding) cannot change what is read by place;
    the shard's own hash shows it, which staging and `shards.py verify` compare.
    """
    draw = random.Random(0)
    whole = [bytearray(spare.path(index).read_bytes()) for index in range(len(spare.shards))]
    held = [np.flatnonzero(spare.shard == index) for index in range(len(whole))]
    places = [where(spare, sample) for sample in range(len(spare))]
    refused_by_kind = collections.Counter()
    for turn in range(1000):
        damage, index = DAMAGES[turn % len(DAMAGES)], draw.randrange(len(whole))
        data, path = bytearray(whole[index]), spare.path(index)
        damage(data, draw)
        if data == b"gone":
            path.unlink()
        elif data == b"swap":
            data = whole[index - 1]
        if path.exists():
            path.write_bytes(data)
        refused, opened = 0, files(spare)
        for sample in held[index]:
            shard, offset, length, xxh3 = places[sample]
            intact = (
                path.exists() and data[offset : offset + length] == whole[index][offset : offset + length]
            )
            if intact:
                assert opened.read(shard, offset, length, xxh3) == whole[index][offset : offset + length]
            else:
                refused += 1
                with pytest.raises(Unreadable, match=path.name):
                    opened.read(shard, offset, length, xxh3)
        opened.close()
        changed = not path.exists() or data != whole[index]
        noticed = (
            refused or spare.check_files() or hashlib.sha256(data).hexdigest() != spare.shards[index].sha256
        )
        assert noticed or not changed, (damage.__name__, turn)
        refused_by_kind[damage.__name__] += bool(refused)
        path.write_bytes(whole[index])
    assert all(refused_by_kind[damage.__name__] for damage in DAMAGES if damage is not flip_header)
    assert refused_by_kind["remove"] == refused_by_kind["other_shard"] == 125
