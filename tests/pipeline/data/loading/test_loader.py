"""Exactness of what the loader hands over: any workers, any ranks, any number of restarts."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.loading.loader import EvaluationLoader, Loading, TrainLoader
from pipeline.data.loading.sampler import Sampling
from pipeline.data.shards.manifest import Manifest
from pipeline.errors import UserError, WorkFailed
from tests.pipeline.packed import SMALL, copied, digests

ROOT = Path(__file__).resolve().parents[4]
SAMPLING = Sampling(seed=5, global_batch=192, repeats=3)
ONCE = Sampling(seed=5, global_batch=24, repeats=1, pairing_block=1)
PLAIN = Augmentation(image_size=16, mixup=0, cutmix=0)
HERE = Loading(workers=0)


@pytest.fixture(scope="module")
def evaluated(digits):
    return Manifest.read(digits.root, "validation")


@pytest.fixture(scope="module")
def gold(digits):
    """An epoch's digests, read by one rank without workers."""
    with TrainLoader(digits, SAMPLING, SMALL, loading=HERE) as loader:
        return digests(loader)


@pytest.fixture(scope="module")
def gold_once(digits):
    with TrainLoader(digits, ONCE, PLAIN, loading=HERE) as loader:
        return digests(loader)


def ranks(digits, world, workers, sampling=SAMPLING, augmentation=SMALL, **settings):
    """The digests of an epoch, put together from all ranks, one rank after the other."""
    found = {}
    for rank in range(world):
        how = Loading(workers=workers, batches=3)
        with TrainLoader(
            digits, sampling, augmentation, rank=rank, world=world, loading=how, **settings
        ) as loader:
            digests(loader, found)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("world", "workers"), [(2, 0), (3, 0), (8, 0), (1, 4)])
def test_an_epoch_hands_over_every_sample_exactly_once(digits, gold_once, world, workers):
    """1437 samples: 59 whole batches of 24, none twice, the same on any ranks and workers."""
    found = ranks(digits, world, workers, ONCE, PLAIN)
    keys = [key for step in found.values() for key, _ in step.values()]
    assert len(found) == 59
    assert all(sorted(found[0, step]) == list(range(24 * step, 24 * step + 24)) for step in range(59))
    assert len(set(keys)) == len(keys) == 59 * 24
    assert found == gold_once


@pytest.mark.slow
@pytest.mark.parametrize(("world", "workers"), [(2, 0), (8, 0), (1, 2)])
def test_keys_and_pixels_of_every_step_do_not_depend_on_ranks_and_workers(digits, gold, world, workers):
    assert ranks(digits, world, workers) == gold


@pytest.mark.parametrize("micro_batch", [8, 64, 192])
def test_keys_and_pixels_of_every_step_do_not_depend_on_the_micro_batch(digits, gold, micro_batch):
    assert ranks(digits, 1, 0, micro_batch=micro_batch) == gold


def test_the_lane_order_does_not_depend_on_ranks_either(digits):
    lanes = Sampling(seed=5, global_batch=192, repeats=3, order="lane", lanes=24, window=2)
    assert ranks(digits, 1, 0, lanes) == ranks(digits, 8, 0, lanes)


def test_epochs_and_seeds_show_other_pixels(digits, gold):
    with TrainLoader(digits, SAMPLING, SMALL, loading=HERE) as loader:
        loader.epoch = 1
        second = {image for step in digests(loader).values() for _, image in step.values()}
    first = {image for step in gold.values() for _, image in step.values()}
    assert len(first) > 0.95 * len(gold) * 192
    assert len(first & second) < 0.02 * len(first)  # blank corners of digits


def test_batches_are_pictures_of_their_samples(digits):
    """Without augmentation a view is its image resized: compared with Pillow's."""
    import io

    from PIL import Image

    plain = Augmentation(image_size=24, scale=(1, 1), ratio=(1, 1), flip=0, randaugment="", mixup=0, cutmix=0)
    with TrainLoader(digits, Sampling(global_batch=48), plain, loading=HERE) as loader:
        batch = next(iter(loader))
        for sample, image in zip(batch.sample, batch.images.numpy(), strict=True):
            data = digits.path(digits.shard[sample]).read_bytes()[digits.offset[sample] :][
                : digits.length[sample]
            ]
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            assert np.abs(image.astype(int) - pixels).max() <= 2


@pytest.mark.slow
def test_batches_reuse_the_memory_that_was_allocated_at_the_start(digits):
    with TrainLoader(digits, SAMPLING, SMALL, loading=Loading(workers=1, batches=2)) as loader:
        places = [batch.images.data_ptr() for batch in loader]
    assert len(places) == 6
    assert len(set(places)) == 2


@pytest.mark.slow
def test_leaving_an_epoch_early_and_beginning_again_mixes_nothing_up(digits, gold):
    with TrainLoader(
        digits, SAMPLING, SMALL, micro_batch=64, loading=Loading(workers=2, batches=4)
    ) as loader:
        next(iter(loader))
        loader.epoch, loader.step = 0, 2
        assert digests(loader) == {key: gold[key] for key in gold if key[1] >= 2}


KILLED = """
import json, os, signal, sys
from pipeline.data.loading.loader import Loading, TrainLoader
from pipeline.data.shards.manifest import Manifest
from tests.pipeline.packed import SMALL
from tests.pipeline.data.loading.test_loader import SAMPLING

manifest = Manifest.read(sys.argv[1], "train")
loader = TrainLoader(manifest, SAMPLING, SMALL, loading=Loading(workers=2, batches=3))
for batch in loader:
    print(json.dumps(loader.state()), flush=True)
    if batch.step == 2:
        print(json.dumps(loader._tasks.pids), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_with_other_workers_exactly_where_it_was_and_leaves_nothing_behind(digits, gold):
    shared = sorted(os.listdir("/dev/shm"))
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(digits.root)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    *_, state, pids = map(json.loads, run.stdout.splitlines())
    assert len(pids) == 2
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            waiting = select.poll()
            waiting.register(os.pidfd_open(pid), select.POLLIN)
            assert waiting.poll(30_000), f"worker {pid} lives on"
    assert sorted(os.listdir("/dev/shm")) == shared
    for world, workers in ((1, 3), (2, 0)):
        found = {}
        for rank in range(world):
            how = Loading(workers=workers)
            with TrainLoader(digits, SAMPLING, SMALL, rank=rank, world=world, loading=how) as loader:
                loader.load_state(state)
                digests(loader, found)
        assert found == {key: gold[key] for key in gold if key[1] >= 3}


def test_the_state_counts_whole_steps_and_is_small(digits):
    with TrainLoader(digits, SAMPLING, SMALL, micro_batch=96, loading=HERE) as loader:
        states = [loader.state() for _ in loader]
    assert [(state["epoch"], state["step"]) for state in states][:4] == [(0, 0), (0, 1), (0, 1), (0, 2)]
    assert (states[-1]["epoch"], states[-1]["step"]) == (1, 0)
    assert len(json.dumps(states[0])) < 600


def test_a_state_of_other_data_or_another_order_is_refused_with_the_difference(digits, evaluated):
    with TrainLoader(digits, SAMPLING, SMALL, loading=HERE) as loader:
        state = loader.state()
    with (
        TrainLoader(evaluated, SAMPLING, SMALL, loading=HERE) as other,
        pytest.raises(UserError, match=r"data changed.* samples 1437 → 360,.* fingerprint"),
    ):
        other.load_state(state)
    with (
        TrainLoader(digits, Sampling(seed=6, global_batch=192), SMALL, loading=HERE) as other,
        pytest.raises(UserError, match=r"sampling changed .*\(seed 5 → 6\)"),
    ):
        other.load_state(state)
    with (
        TrainLoader(digits, SAMPLING, SMALL, loading=HERE) as other,
        pytest.raises(UserError, match="format 9"),
    ):
        other.load_state(state | {"format": 9})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"world": 5}, "nearest world sizes that can: 4 and 6"),
        ({"micro_batch": 40}, "the nearest that do: 32 and 48"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_what_would(digits, settings, said):
    with pytest.raises(UserError, match=said):
        TrainLoader(digits, SAMPLING, SMALL, **({"loading": HERE} | settings))


@pytest.mark.parametrize("setting", [{"workers": -2}, {"batches": 0}, {"timeout": 0.0}])
def test_a_setting_of_loading_out_of_range_is_refused(setting):
    (name, value), *_ = setting.items()
    with pytest.raises(UserError, match=f"{name} is {value}"):
        Loading(**setting)


def test_a_set_with_a_missing_shard_is_refused_at_the_start(digits, tmp_path):
    spare = copied(digits, tmp_path / "copy")
    spare.path(3).unlink()
    with pytest.raises(WorkFailed, match=f"{spare.shards[3].name} is missing"):
        TrainLoader(spare, SAMPLING, SMALL, loading=HERE)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_evaluation_hands_over_every_sample_once_on_any_world_size(evaluated, world):
    seen, steps = [], set()
    for rank in range(world):
        with EvaluationLoader(evaluated, SMALL, batch=32, rank=rank, world=world, loading=HERE) as loader:
            steps.add(loader.steps)
            for batch in loader:
                assert batch.images.shape == (32, 16, 16, 3)
                assert not batch.images.numpy()[batch.sample < 0].any()
                seen.append(batch.sample[batch.sample >= 0])
    assert np.array_equal(np.sort(np.concatenate(seen)), np.arange(360))
    assert len(steps) == 1


@pytest.mark.slow
def test_evaluation_pixels_do_not_depend_on_workers(evaluated):
    found = []
    for workers in (0, 2):
        how = Loading(workers=workers, batches=2)
        with EvaluationLoader(evaluated, SMALL, batch=100, loading=how) as loader:
            found.append(digests(loader))
    assert found[0] == found[1]
    assert len(found[0]) == 4


@pytest.mark.parametrize(("cores", "processes"), [(1, 1), (2, 1), (12, 11), (64, 16)])
def test_workers_follow_the_cores_unless_they_are_said(monkeypatch, cores, processes):
    monkeypatch.setattr("pipeline.data.loading.loader.cores_of_process", lambda: cores)
    assert Loading().processes() == processes
    assert [Loading(workers=said).processes() for said in (0, 3)] == [0, 3]
