import dataclasses
import hashlib
import random
import subprocess
import sys

import numpy as np
import pytest
import timm.data.random_erasing
from PIL import Image
from scipy.stats import chi2_contingency, ks_2samp
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation

from pipeline.data.augmentation.draws import draw_batch, draw_views
from pipeline.data.augmentation.settings import Augmentation

AUG = Augmentation()
SAMPLES = 20_000


def views(positions, width=500, height=375, aug=AUG, seed=3, epoch=5):
    ones = np.ones(len(positions), np.int64)
    return draw_views(aug, seed, epoch, np.asarray(positions), width * ones, height * ones)


def batch(slots, aug=AUG, seed=3, epoch=5, step=7, size=1024):
    slots = np.asarray(slots)
    return draw_batch(aug, seed, epoch, step, step * size + slots, slots)


def rows(draws):
    return [np.asarray(getattr(draws, field.name)) for field in dataclasses.fields(draws)]


def alike(theirs, ours):
    """The same distribution, by Kolmogorov and Smirnov; seeds are fixed, so that luck does not change."""
    return ks_2samp(theirs, ours).pvalue > 0.001


# Purity.


def test_the_draws_of_a_position_do_not_depend_on_the_company():
    everything = views(np.arange(64))
    order = np.random.default_rng(0).permutation(64)[:23]
    for whole, part in zip(rows(everything), rows(views(order)), strict=True):
        assert np.array_equal(whole[order], part)
    for position in (0, 17, 63):
        for whole, part in zip(rows(everything), rows(views([position])), strict=True):
            assert np.array_equal(whole[[position]], part)


DIGEST = """
import hashlib
import numpy as np
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.augmentation.draws import draw_batch, draw_views
side = np.full(40, 300)
v = draw_views(Augmentation(), 3, 5, np.arange(100, 140), side, side)
b = draw_batch(Augmentation(), 3, 5, 7, np.arange(40), np.arange(40))
arrays = [v.crop, v.flip, v.operation, v.argument, b.erase, b.weight, b.cut]
digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
"""


def test_another_process_draws_the_same():
    here: dict = {}
    exec(DIGEST, here)
    code = DIGEST + "print(digest)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == here["digest"]


def test_the_draws_of_a_recipe_stay_what_they_are():
    """A change here is another science: every recorded run would draw other views."""
    integers = [views(np.arange(8)).crop, batch(np.arange(8)).erase, batch(np.arange(64)).cut]
    digest = hashlib.sha256(b"".join(array.astype("<i4").tobytes() for array in integers)).hexdigest()
    assert digest[:16] == "00fc089d389ccaaf"


@pytest.mark.parametrize(("interpolation", "share"), [("bicubic", 0.0), ("bilinear", 1.0), ("random", 0.5)])
def test_crop_and_operations_draw_their_interpolation_each(interpolation, share):
    aug = dataclasses.replace(Augmentation(), interpolation=interpolation)
    linear = draw_views(aug, 0, 0, np.arange(4000), *np.full((2, 4000), 300)).linear
    assert linear.shape == (4000, 3)
    assert linear.mean(0) == pytest.approx([share] * 3, abs=0.03)
    assert (linear[:, 0] == linear[:, 1]).mean() == pytest.approx(1 if share != 0.5 else 0.5, abs=0.03)


@pytest.mark.parametrize("change", [{"seed": 4}, {"epoch": 6}])
def test_seed_and_epoch_change_the_draws(change):
    assert (views(np.arange(64)).crop != views(np.arange(64), **change).crop).any(1).mean() > 0.9
    assert (batch(np.arange(128)).erase != batch(np.arange(128), **change).erase).any()
    assert (batch(np.arange(8)).weight != batch(np.arange(8), **change).weight).any()


def test_positions_far_beyond_an_epoch_of_imagenet_have_draws_of_their_own():
    near, far = views(np.arange(8)), views(2**40 + np.arange(8))
    assert (near.crop != far.crop).any(1).all()


def test_turning_one_thing_off_moves_nothing_else():
    plain = Augmentation(randaugment="", flip=0.0, erase=0.0)
    assert np.array_equal(views(np.arange(50)).crop, views(np.arange(50), aug=plain).crop)
    assert views(np.arange(50), aug=plain).operation.shape == (50, 0)
    assert not views(np.arange(50), aug=plain).flip.any()
    assert not batch(np.arange(64), aug=plain).erase.any()
    assert np.array_equal(batch(np.arange(64)).weight, batch(np.arange(64), aug=plain).weight)


# Crops.


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (90, 64), (900, 150)])
def test_crops_are_distributed_as_timms(width, height):
    random.seed(1)
    transform = RandomResizedCropAndInterpolation(224)
    image = Image.new("L", (width, height))
    theirs = np.array([transform.get_params(image, AUG.scale, AUG.ratio) for _ in range(SAMPLES)])
    ours = views(np.arange(SAMPLES), width, height).crop
    for measure in (
        lambda c: c[:, 2] * c[:, 3],
        lambda c: c[:, 3] / c[:, 2],
        lambda c: c[:, 0],
        lambda c: c[:, 1],
        lambda c: (c[:, 0] + c[:, 2] / 2) * (c[:, 1] + c[:, 3] / 2),
    ):
        assert alike(measure(theirs), measure(ours))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 300), (300, 1), (2, 3), (2000, 40), (40, 2000)])
def test_a_crop_lies_inside_any_image(width, height):
    top, left, h, w = views(np.arange(500), width, height).crop.T
    assert min(top.min(), left.min()) >= 0
    assert min(h.min(), w.min()) >= 1
    assert (top + h).max() <= height
    assert (left + w).max() <= width


def test_an_image_too_slim_for_any_box_gives_timms_central_crop():
    transform = RandomResizedCropAndInterpolation(224)
    for width, height in ((2000, 40), (40, 2000)):
        image = Image.new("L", (width, height))
        assert np.array_equal(
            np.unique(views(np.arange(50), width, height).crop, axis=0),
            [transform.get_params(image, AUG.scale, AUG.ratio)],
        )


def test_half_of_the_views_are_flipped():
    assert abs(views(np.arange(SAMPLES)).flip.mean() - 0.5) < 0.02


# Erasing.


class Recorder:
    """Stands for an image: notes the box that timm erases."""

    box = (0, 0, 0, 0)

    def __setitem__(self, place, value):
        _, y, x = place
        self.box = (y.start, x.start, y.stop - y.start, x.stop - x.start)


def timms_box(erasing):
    recorder = Recorder()
    erasing._erase(recorder, 3, 224, 224, None)
    return recorder.box


def test_erasing_boxes_are_distributed_as_timms(monkeypatch):
    monkeypatch.setattr(timm.data.random_erasing, "_get_pixels", lambda *_, **__: None)
    random.seed(0)
    erasing = RandomErasing(AUG.erase, mode="pixel", device="cpu")
    theirs = np.array([timms_box(erasing) for _ in range(SAMPLES)])
    ours = draw_batch(AUG, 1, 0, 0, np.arange(SAMPLES), np.arange(SAMPLES)).erase
    rates = [[(boxes[:, 2] > 0).sum(), (boxes[:, 2] == 0).sum()] for boxes in (theirs, ours)]
    assert chi2_contingency(rates).pvalue > 0.01
    assert abs(rates[1][0] / SAMPLES - AUG.erase) < 0.01
    theirs, ours = (boxes[boxes[:, 2] > 0] for boxes in (theirs, ours))
    for measure in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 2] / b[:, 3],
        lambda b: b[:, 0],
        lambda b: b[:, 1],
    ):
        assert alike(measure(theirs), measure(ours))
