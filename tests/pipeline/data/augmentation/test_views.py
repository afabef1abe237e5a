import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

from pipeline.data.augmentation import views
from pipeline.data.augmentation.draws import draw_views
from pipeline.data.augmentation.policy import OPERATIONS
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.images.decode import ImageKind, decode
from pipeline.data.images.resample import resize_into
from tests.pipeline.data.augmentation import oracle
from tests.pipeline.photographs import NAMES, photograph, pixels, stored, stored_file

PLAIN = Augmentation(randaugment="")
PATHS = (views.render_views, oracle.render_views)


def draws_for(image, count, aug, seed=0):
    return draw_views(
        aug, seed, 0, np.arange(count), *np.full((2, count, 1), [[[image.width]], [[image.height]]])[..., 0]
    )


def rendered(path, image, draws, aug, indices=None):
    indices = range(len(draws.crop)) if indices is None else indices
    out = np.zeros((len(indices), aug.image_size, aug.image_size, 3), np.uint8)
    path(image, draws, indices, list(out), aug)
    return out


def nearly_equal(ours, theirs, share=0.99):
    """The promise on interpolation: 99 % of the values equal, none further away than 2."""
    error = np.abs(ours.astype(int) - theirs)
    return (error == 0).mean() >= share and error.max() <= 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("interpolation", "share"), [("bicubic", 0.99), ("bilinear", 0.98)])
def test_the_resize_equals_pillows(name, interpolation, share):
    draw = np.random.default_rng(0)
    source, slot = pixels(name), np.zeros((224, 224, 3), np.uint8)
    for _ in range(25):
        top, left = draw.integers(0, 200, 2)
        window = source[top : top + draw.integers(20, 228), left : left + draw.integers(20, 400)]
        resize_into(slot, window, interpolation)
        theirs = Image.fromarray(window).resize((224, 224), Image.Resampling[interpolation.upper()])
        assert nearly_equal(slot, np.asarray(theirs), share)


def test_the_resize_writes_into_its_slot_and_nowhere_else():
    slots = np.full((3, 32, 32, 3), 7, np.uint8)
    resize_into(slots[1], pixels("china.jpg")[10:100, 20:300], "bicubic")
    assert (slots[[0, 2]] == 7).all()
    assert (slots[1] != 7).mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subsampling", [0, 2])
def test_crop_and_flip_equal_the_oracle(name, subsampling):
    image = stored(name, subsampling=subsampling)
    draws = draws_for(image, 24, PLAIN)
    assert 0 < draws.flip.sum() < 24
    ours, theirs = (rendered(path, image, draws, PLAIN) for path in PATHS)
    assert nearly_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("interpolation", ["bicubic", "random"])
def test_the_whole_chain_stays_close_to_the_oracle(name, interpolation):
    """An operation may amplify a difference of one level (solarize, equalize); few pixels meet that."""
    aug, image = Augmentation(interpolation=interpolation), stored(name)
    draws = draws_for(image, 120, aug)
    ours, theirs = (rendered(path, image, draws, aug) for path in PATHS)
    error = np.abs(ours.astype(int) - theirs).reshape(120, -1)
    turned = (draws.operation == OPERATIONS.index("Rotate")).any(1)
    assert turned.sum() > 4
    assert (error[~turned] <= 2).mean() > 0.998
    assert error[~turned].mean() < 0.03
    assert (error[turned] <= 8).mean() > 0.99
    assert error.mean() < 0.12


def test_a_view_does_not_depend_on_the_views_rendered_with_it():
    aug, image = Augmentation(), stored()
    draws = draws_for(image, 9, aug)
    together = rendered(views.render_views, image, draws, aug)
    for index in (0, 4, 8):
        assert np.array_equal(rendered(views.render_views, image, draws, aug, [index])[0], together[index])


def test_all_views_of_an_image_come_from_one_decode(monkeypatch):
    calls, original = [], views.decode
    monkeypatch.setattr(views, "decode", lambda image: calls.append(image) or original(image))
    rendered(views.render_views, stored(), draws_for(stored(), 3, Augmentation()), Augmentation())
    assert len(calls) == 1


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 90), (90, 1), (7, 500), (224, 224)])
def test_any_size_of_image_gives_views_and_an_evaluation_image(width, height):
    image = stored_file(photograph("china.jpg", width, height), "PNG", ImageKind.PNG)
    aug = Augmentation(image_size=32)
    draws = draws_for(image, 8, aug)
    ours, theirs = (rendered(path, image, draws, dataclasses.replace(aug, randaugment="")) for path in PATHS)
    assert np.abs(ours.astype(int) - theirs).max() <= 2
    rendered(views.render_views, image, draws, aug)
    evaluated = np.zeros((2, 32, 32, 3), np.uint8)
    views.render_evaluation(image, evaluated[0], aug)
    oracle.render_evaluation(image, evaluated[1], aug)
    assert np.abs(np.subtract(*evaluated.astype(int))).max() <= 2


# Evaluation.


def timms_evaluation(image, aug):
    transform = create_transform(
        (3, aug.image_size, aug.image_size),
        is_training=False,
        crop_pct=aug.crop_fraction,
        interpolation=aug.interpolation,
        mean=aug.mean,
        std=aug.std,
        use_prefetcher=True,
    )
    tensor = transform(Image.fromarray(decode(image)))
    assert tensor.dtype == torch.uint8
    return tensor.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    "image",
    [
        stored("china.jpg"),
        stored("flower.jpg", 375, 500),
        stored("china.jpg", 301, 200),
        stored("china.jpg", 99, 130),
    ],
    ids=lambda image: f"{image.width}×{image.height}",
)
@pytest.mark.parametrize(
    "aug", [Augmentation(), Augmentation(image_size=384, crop_fraction=1.0)], ids=["224", "384"]
)
def test_evaluation_equals_timms_transform(image, aug):
    ours, theirs = np.zeros((2, aug.image_size, aug.image_size, 3), np.uint8)
    views.render_evaluation(image, ours, aug)
    assert nearly_equal(ours, timms_evaluation(image, aug))
    oracle.render_evaluation(image, theirs, aug)
    assert np.array_equal(theirs, timms_evaluation(image, aug))
