"""The order of samples, on manifests made up from numbers."""

import numpy as np
import pytest

from pipeline.data.loading.sampler import Sampling, TrainOrder, substitute
from pipeline.data.shards.manifest import Manifest, Shard
from pipeline.errors import UserError


def made_up(samples: int, per_shard: int = 100) -> Manifest:
    held = [min(per_shard, samples - start) for start in range(0, samples, per_shard)]
    shards = tuple(Shard(f"x-{i:04d}.tar", n, 1000 * n + 1024, "0" * 64) for i, n in enumerate(held))
    place = np.arange(samples) % per_shard
    return Manifest(
        root="/nowhere",
        split="train",
        classes=("a", "b"),
        shards=shards,
        key=np.char.mod(b"%08d", np.arange(samples)),
        label=np.arange(samples) % 2,
        shard=np.repeat(np.arange(len(held)), held),
        offset=place * 1000 + 512,
        length=np.full(samples, 100),
        xxh3=np.arange(samples),
        width=np.full(samples, 500),
        height=np.full(samples, 375),
        kind=np.zeros(samples),
    )


def views(order: TrainOrder, epoch: int, step: int, first: int = 0, count: int | None = None) -> np.ndarray:
    """What views of a step show, from one of them on; without a count those of the whole global batch."""
    size = order.sampling.global_batch
    slot = np.arange(first, size if count is None else first + count)
    return order.samples(epoch, step * size + slot)


def share(order: TrainOrder, epoch: int, step: int, rank: int, world: int) -> np.ndarray:
    size = order.sampling.global_batch // world
    return views(order, epoch, step, rank * size, size)


def epoch_views(order: TrainOrder, epoch: int, world: int) -> list[np.ndarray]:
    return [
        np.concatenate([share(order, epoch, step, rank, world) for rank in range(world)])
        for step in range(order.steps_per_epoch)
    ]


ORDERS = [{"order": "global"}, {"order": "lane", "lanes": 24, "window": 2}]


@pytest.mark.parametrize("how", ORDERS, ids=["global", "lane"])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_an_epoch_shows_every_sample_exactly_once(how, world):
    order = TrainOrder(made_up(1920), Sampling(global_batch=192, repeats=1, **how))
    order.sampling.check_world(world)
    seen = np.concatenate(epoch_views(order, 3, world))
    assert np.array_equal(np.sort(seen), np.arange(1920))


@pytest.mark.parametrize("how", ORDERS, ids=["global", "lane"])
def test_what_does_not_fill_a_batch_is_dropped_and_different_each_epoch(how):
    order = TrainOrder(made_up(2000), Sampling(global_batch=192, repeats=1, **how))
    missing = []
    for epoch in range(3):
        seen = np.concatenate(epoch_views(order, epoch, 1))
        assert len(set(seen.tolist())) == len(seen) == 1920
        missing.append(set(range(2000)) - set(seen.tolist()))
    assert len(missing[0]) == 80
    assert missing[0] != missing[1] != missing[2]


@pytest.mark.parametrize("how", ORDERS, ids=["global", "lane"])
@pytest.mark.parametrize("repeats", [1, 3])
def test_every_world_size_sees_the_same_global_batches(how, repeats):
    order = TrainOrder(made_up(2000), Sampling(global_batch=192, repeats=repeats, **how))
    whole = epoch_views(order, 1, 1)
    for world in (2, 3, 8):
        assert all(map(np.array_equal, whole, epoch_views(order, 1, world)))


@pytest.mark.slow
@pytest.mark.parametrize("samples", [255, 256, 2000, 2047, 2048])
def test_an_epoch_with_repeats_is_as_long_as_in_deit(samples):
    from timm.data.distributed_sampler import RepeatAugSampler

    reference = RepeatAugSampler(range(samples), num_replicas=1, rank=0, num_repeats=3)
    order = TrainOrder(made_up(samples), Sampling(global_batch=8, repeats=3))
    assert order.steps_per_epoch == len(reference) // 8


def test_the_views_of_a_step_repeat_as_many_images_as_in_deit():
    """DeiT deals the repeated list out over ranks: a step still shows 64 images, each three times."""
    from timm.data.distributed_sampler import RepeatAugSampler

    ranks = [list(RepeatAugSampler(range(4096), 8, rank, num_repeats=3)) for rank in range(8)]
    theirs = np.concatenate([np.unique([r[i] for r in ranks for i in range(24)], return_counts=True)[1]])
    shown = views(TrainOrder(made_up(4096), Sampling(global_batch=192, repeats=3)), 0, 0)
    ours = np.unique(shown, return_counts=True)[1]
    assert np.array_equal(np.sort(ours), np.sort(theirs))
    assert (np.diff(shown).reshape(-1)[0:2] == 0).all()


@pytest.mark.parametrize("how", ORDERS, ids=["global", "lane"])
def test_repeats_show_each_chosen_image_three_times(how):
    order = TrainOrder(made_up(1920), Sampling(global_batch=192, repeats=3, **how))
    seen = np.concatenate(epoch_views(order, 0, 2))
    counts = np.bincount(seen, minlength=1920)
    assert counts.max() == 3
    edges = 24 if how["order"] == "lane" else 1
    assert (counts[counts > 0] < 3).sum() <= edges
    assert len(seen) == 1920 // 256 * 256 // 192 * 192


@pytest.mark.parametrize("how", ORDERS, ids=["global", "lane"])
def test_epochs_and_seeds_differ_and_repeat_themselves(how):
    manifest = made_up(1920)
    first = TrainOrder(manifest, Sampling(global_batch=192, **how))
    again = TrainOrder(manifest, Sampling(global_batch=192, **how))
    other = TrainOrder(manifest, Sampling(seed=1, global_batch=192, **how))
    late = views(again, 7, 4)  # asked for first: nothing before it has been computed
    for epoch in (9, 2, 7):
        views(first, epoch, 0)
    assert np.array_equal(views(first, 7, 4), late)
    assert not np.array_equal(views(first, 8, 4), late)
    assert not np.array_equal(views(other, 7, 4), late)


def test_a_step_of_an_epoch_needs_one_order_of_that_epoch_and_replays_nothing(monkeypatch):
    drawn = []
    import pipeline.data.loading.sampler as sampler

    plain = sampler._words
    monkeypatch.setattr(
        sampler, "_words", lambda seed, epoch, *rest: drawn.append(epoch) or plain(seed, epoch, *rest)
    )
    order = TrainOrder(made_up(1920), Sampling(global_batch=192, repeats=1))
    for step in (9, 3, 5):
        share(order, 211, step, 1, 2)
    assert drawn == [211]


def test_the_order_is_not_that_of_the_shards():
    order = TrainOrder(made_up(19200, per_shard=100), Sampling(global_batch=192, repeats=1))
    batch = views(order, 0, 0)
    assert len(np.unique(batch // 100)) > 80  # of 192 shards; 121 are expected


def test_a_lane_reads_few_shards_at_a_time():
    how = Sampling(global_batch=64, repeats=1, order="lane", lanes=8, window=2, pairing_block=8)
    order = TrainOrder(made_up(19200, per_shard=100), how)
    for start in (0, 100, 200):
        span = [views(order, 0, step, 16, 8) // 100 for step in range(start, start + 10)]
        assert len(np.unique(span)) <= 2 * 3


def test_lanes_are_permuted_within_their_windows():
    how = Sampling(global_batch=64, repeats=1, order="lane", lanes=8, window=4, pairing_block=8)
    order = TrainOrder(made_up(19200, per_shard=100), how)
    lane = np.concatenate([views(order, 0, step, 0, 8) for step in range(40)])
    assert len(np.unique(lane[:50] // 100)) >= 3
    assert not np.array_equal(np.sort(lane), lane)


@pytest.mark.parametrize(
    ("settings", "world", "said"),
    [
        ({"global_batch": 1024}, 3, "2 and 4"),
        ({"global_batch": 1024}, 0, "1"),
        ({"global_batch": 1024}, 1000, "128"),
        ({"global_batch": 1024, "pairing_block": 1}, 1000, "512 and 1024"),
        ({"global_batch": 768, "order": "lane", "lanes": 32}, 3, "2 and 4"),
    ],
)
def test_a_world_size_that_does_not_fit_is_refused_with_the_nearest_that_do(settings, world, said):
    with pytest.raises(UserError, match=f": {said}$"):
        Sampling(**settings).check_world(world)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"order": "globl"}, "did you mean 'global'"),
        ({"global_batch": 1020}, "1016 and 1024"),
        ({"global_batch": 0}, "from 1 to"),
        ({"repeats": 0}, "from 1 to"),
        ({"order": "lane", "global_batch": 1024, "lanes": 60}, "32 and 64"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_what_would(settings, said):
    with pytest.raises(UserError, match=said):
        Sampling(**settings)


def test_a_micro_batch_that_does_not_divide_is_refused_with_the_nearest_that_do():
    Sampling(global_batch=1024).check_micro_batch(32, 8)
    with pytest.raises(UserError, match="32 and 64"):
        Sampling(global_batch=1024).check_micro_batch(48, 8)


def test_a_set_smaller_than_a_batch_is_refused():
    with pytest.raises(UserError, match="holds 100 samples"):
        TrainOrder(made_up(100), Sampling(global_batch=128))


def test_substitutes_are_keyed_and_reach_every_sample():
    first = [substitute(0, 2, 5, attempt, 50) for attempt in range(600)]
    assert first == [substitute(0, 2, 5, attempt, 50) for attempt in range(600)]
    assert set(first) == set(range(50))
    for other in ({"seed": 1}, {"epoch": 3}, {"position": 6}):
        key = {"seed": 0, "epoch": 2, "position": 5} | other
        assert [substitute(attempt=attempt, samples=50, **key) for attempt in range(600)] != first
