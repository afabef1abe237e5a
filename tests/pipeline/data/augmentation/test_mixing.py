"""Mixup and cutmix: drawn as timm draws them, for groups of views that share lambda."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import kstest
from timm.data.mixup import Mixup, cutmix_bbox_and_lam

from pipeline.data.augmentation.draws import draw_batch
from pipeline.data.randomness import Purpose, philox
from tests.pipeline.data.augmentation.test_draws import AUG, alike, batch


def one_draw(aug, step):
    """Lambda, whether it is cutmix, and the box, of one group."""
    draws = draw_batch(aug, 1, 0, step, np.arange(8), np.arange(8))
    return draws.weight[0], draws.cut[0, 1] > 0, draws.cut[0]


def timms_draw(mixup):
    weight, cuts = mixup._params_per_batch()
    box = (0, 0, 0, 0)
    if cuts:
        box, weight = cutmix_bbox_and_lam((8, 3, 224, 224), weight)
    return weight, cuts, box


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{}, {"cutmix": 0.0}, {"mixup": 0.0}, {"switch_probability": 0.2, "cutmix": 0.3}],
    ids=["both", "mixup", "cutmix", "seldom cutmix"],
)
def test_mixing_is_distributed_as_timms(change):
    samples = 4000
    aug = dataclasses.replace(AUG, **change)
    np.random.seed(0)  # noqa: NPY002 - timm draws from the global generator
    mixup = Mixup(aug.mixup, aug.cutmix, prob=aug.mix_probability, switch_prob=aug.switch_probability)
    theirs = [timms_draw(mixup) for _ in range(samples)]
    ours = [one_draw(aug, step) for step in range(samples)]
    switched = [
        [sum(bool(draw[1]) is kind for draw in draws) for kind in (True, False)] for draws in (theirs, ours)
    ]
    # A cutmix box of no pixels is no cutmix here and cutmix with lambda 1 there: the same batch.
    assert abs(switched[0][0] - switched[1][0]) < 0.04 * samples
    for kind in (True, False):
        part = [np.array([d[0] for d in draws if bool(d[1]) is kind]) for draws in (theirs, ours)]
        if min(map(len, part)) > samples / 50:
            assert alike(*(values[values < 1] for values in part))
    boxes = [np.array([d[2] for d in draws if d[1]]) for draws in (theirs, ours)]
    if min(map(len, boxes)):
        for side in range(4):
            assert alike(boxes[0][:, side], boxes[1][:, side])


def test_lambda_of_mixup_follows_beta():
    weights = [one_draw(dataclasses.replace(AUG, cutmix=0.0), step)[0] for step in range(3000)]
    assert kstest(weights, "beta", (0.8, 0.8)).pvalue > 0.01


def test_the_weight_is_the_share_of_the_view_that_is_its_own():
    for step in range(200):
        weight, cuts, (top, bottom, left, right) = one_draw(AUG, step)
        if cuts:
            assert math.isclose(weight, 1 - (bottom - top) * (right - left) / 224**2)


def test_mixing_happens_as_often_as_asked():
    aug = dataclasses.replace(AUG, mix_probability=0.3)
    assert abs(np.mean([one_draw(aug, step)[0] < 1 for step in range(2000)]) - 0.3) < 0.03
    assert batch(np.arange(8), aug=dataclasses.replace(AUG, mixup=0.0, cutmix=0.0)).groups == ()


def test_a_box_is_timms_for_the_same_lambda_and_centre(monkeypatch):
    """To the pixel, as in timm 0.3.2. A later timm gives a box of an odd edge one pixel more: it is asked for
    a box of the edge below.
    """
    aug, odd = dataclasses.replace(AUG, mixup=0.0), 0
    for step in range(300):
        stream = np.random.Generator(philox(1, Purpose.MIX, 0, high=step))
        stream.random(2)
        weight, centre = stream.beta(1.0, 1.0), stream.integers(0, 224, 2).tolist()
        edge = int(224 * math.sqrt(1 - weight))
        if edge % 2:
            odd, weight = odd + 1, 1 - ((edge - 0.5) / 224) ** 2
        draw = iter(centre)
        monkeypatch.setattr(np.random, "randint", lambda low, high, size=None, draw=draw: next(draw))
        box, share = cutmix_bbox_and_lam((8, 3, 224, 224), weight)
        ours, _, cut = one_draw(aug, step)
        assert ours == pytest.approx(share)
        assert ours == 1 or tuple(cut) == tuple(box)
    assert 100 < odd < 200


def owners(draws):
    """The group of each view."""
    group = np.full(len(draws), -1)
    for number, members in enumerate(draws.groups):
        assert (group[members] == -1).all()
        group[members] = number
    return group


def test_lambda_is_drawn_for_128_views_of_as_many_images():
    draws = batch(np.arange(1024))
    assert len(np.unique(draws.weight)) == 8
    for members in draws.groups:
        assert len(np.unique(np.arange(1024)[members] // 3)) == 128


@pytest.mark.parametrize("size", [8, 96, 256, 512, 1000, 1024, 1536])
@pytest.mark.parametrize("repeats", [2, 3, 4])
def test_no_two_views_of_an_image_share_a_group_but_partners_do(size, repeats):
    group = owners(batch(np.arange(size), size=size))
    counts = np.bincount(group)
    assert counts.max() <= 128
    assert counts[:4].min() == counts[:4].max() == min(size, 512) // 4
    for step in range(repeats):
        image = (step * size + np.arange(size)) // repeats
        assert len(np.unique(np.stack([image, group]), axis=1).T) == size
    blocks = group.reshape(-1, 8)
    assert np.array_equal(blocks[:, :4], blocks[:, 4:])


@pytest.mark.parametrize("part", [8, 24, 64, 200])
def test_a_part_of_the_batch_has_the_draws_of_its_views_in_the_whole(part):
    whole = batch(np.arange(1000))
    group = owners(whole)
    for first in range(0, 1000, part):
        slots = np.arange(first, min(first + part, 1000))
        draws = batch(slots)
        own = owners(draws)
        assert np.array_equal(draws.erase, whole.erase[slots])
        assert np.array_equal(draws.weight[own], whole.weight[group[slots]])
        assert np.array_equal(draws.cut[own], whole.cut[group[slots]])


def test_parts_that_are_not_neighbours_keep_their_own_groups():
    whole, draws = batch(np.arange(1024)), batch(np.r_[0:16, 512:528])
    assert np.array_equal(draws.weight, whole.weight)
    assert np.array_equal(owners(draws), owners(whole)[np.r_[0:16, 512:528]])


@pytest.mark.parametrize("slots", [np.arange(4, 12), np.r_[0:4, 8:12], np.arange(8)[::-1]])
def test_a_torn_pairing_block_is_a_fault(slots):
    with pytest.raises(AssertionError, match="pairing block"):
        batch(slots)
