"""Copies on a node's own disk."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.data.loading.loader import Loading, TrainLoader
from pipeline.data.loading.sampler import Sampling
from pipeline.data.shards import staging
from pipeline.data.shards.manifest import Manifest
from pipeline.data.shards.staging import stage
from pipeline.errors import UserError, WorkFailed
from tests.pipeline.packed import SMALL, copied, digests, overwrite

ROOT = Path(__file__).resolve().parents[4]


def hashes(manifest):
    return [
        hashlib.sha256(manifest.path(index).read_bytes()).hexdigest() for index in range(len(manifest.shards))
    ]


def test_a_staged_split_is_the_same_split_elsewhere(digits, tmp_path):
    staged = stage(digits, tmp_path / "disk")
    assert staged.root.parent == tmp_path / "disk"
    assert hashes(staged) == [shard.sha256 for shard in digits.shards]
    assert Manifest.read(staged.root, "train").fingerprint == digits.fingerprint
    found = []
    for manifest in (digits, staged):
        with TrainLoader(manifest, Sampling(global_batch=192), SMALL, loading=Loading(workers=0)) as loader:
            found.append(digests(loader))
    assert found[0] == found[1]


def test_the_next_job_copies_nothing(digits, tmp_path, monkeypatch):
    first = stage(digits, tmp_path)
    monkeypatch.setattr(staging, "_copy", None)
    assert stage(digits, tmp_path).root == first.root


def test_only_what_is_missing_is_copied_again(digits, tmp_path, monkeypatch):
    staged = stage(digits, tmp_path)
    staged.path(2).unlink()
    os.truncate(staged.path(5), 100)
    names, plain = [], staging._copy
    monkeypatch.setattr(staging, "_copy", lambda *those: (names.append(those[2].name), plain(*those)))
    assert hashes(stage(digits, tmp_path)) == hashes(digits)
    assert sorted(names) == [digits.shards[2].name, digits.shards[5].name]


KILLED = """
import os, signal, sys
from pipeline.data.shards import staging
from pipeline.data.shards.manifest import Manifest

plain, done = staging._copy_checked, []
def stop(source, target, shard):
    if len(done) == 3:
        target.write(b"half a shard")
        target.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    plain(source, target, shard)
    done.append(shard)
staging._copy_checked, staging.COPIES = stop, 1
staging.stage(Manifest.read(sys.argv[1], "train"), sys.argv[2])
"""


def test_a_copy_that_was_killed_goes_on_where_it_was(digits, tmp_path, monkeypatch):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(digits.root), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL
    names, plain = [], staging._copy
    monkeypatch.setattr(staging, "_copy", lambda *those: (names.append(those[2].name), plain(*those)))
    staged = stage(digits, tmp_path)
    assert len(names) == len(digits.shards) - 3
    assert hashes(staged) == hashes(digits)
    assert not [name for name in os.listdir(staged.root) if "partial" in name]


def test_the_ranks_of_a_node_copy_once(digits, tmp_path, monkeypatch):
    names, plain = [], staging._copy
    monkeypatch.setattr(staging, "_copy", lambda *those: (names.append(those[2].name), plain(*those)))
    with ThreadPoolExecutor(4) as ranks:
        roots = {one.root for one in ranks.map(lambda _: stage(digits, tmp_path), range(4))}
    assert len(roots) == 1
    assert sorted(names) == sorted(shard.name for shard in digits.shards)


def test_a_damaged_shard_is_refused_by_name_and_does_not_appear(digits, tmp_path):
    spare = copied(digits, tmp_path / "copy")
    overwrite(spare, 300)
    name = spare.shards[spare.shard[300]].name
    with pytest.raises(WorkFailed, match=f"{name} has another hash than its manifest records"):
        stage(spare, tmp_path / "disk")
    (target,) = [path for path in (tmp_path / "disk").iterdir() if path.is_dir()]
    assert name not in os.listdir(target)
    assert "train.manifest.json" not in os.listdir(target)


def test_two_versions_of_a_set_do_not_mix(digits, tmp_path):
    validation = Manifest.read(digits.root, "validation")
    assert stage(digits, tmp_path).root != stage(validation, tmp_path).root


def test_a_disk_too_small_is_refused_before_anything_is_copied(digits, tmp_path, monkeypatch):
    stage(Manifest.read(digits.root, "validation"), tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=staging.RESERVE + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"1.1 GB free, .* earlier jobs: validation-.* data.stage empty"):
        stage(digits, tmp_path)
    assert not list(tmp_path.glob("train-*/*.tar"))


def test_a_directory_that_cannot_be_made_is_the_users_error(digits, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data.stage=.*file/below cannot be used"):
        stage(digits, tmp_path / "file" / "below")
