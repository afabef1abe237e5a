import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from timm.data.mixup import mixup_target
from torchvision.transforms import Normalize
from torchvision.transforms.functional import to_tensor

from pipeline.data.augmentation.batch import finish_evaluation, finish_train, soft_targets
from pipeline.data.augmentation.draws import draw_batch
from pipeline.data.augmentation.settings import Augmentation

SIZE, CLASSES = 32, 10
AUG = Augmentation(image_size=SIZE)
STILL = dataclasses.replace(AUG, mixup=0.0, cutmix=0.0, erase=0.0)
PARTNER = [4, 5, 6, 7, 0, 1, 2, 3]


def images(count, size=SIZE, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8))


def labels(count):
    return torch.arange(count) % CLASSES


def placed(slots, step=0):
    """Where views stand: what names their draws."""
    slots = np.asarray(slots)
    return {"seed": 3, "epoch": 1, "step": step, "position": 4096 * step + slots, "slot": slots}


def draws(slots, aug=AUG, step=0):
    return draw_batch(aug, *placed(slots, step).values())


def finished(slots, aug=AUG, step=0, device="cpu"):
    """The views at `slots` of a global batch of 512."""
    slots = np.asarray(slots)
    return finish_train(images(512)[slots], labels(512)[slots], aug, CLASSES, device, **placed(slots, step))


def partners(x):
    return x.reshape(-1, 8, *x.shape[1:])[:, PARTNER].reshape(x.shape)


def mixed(x, drawn):
    """The images of whole pairing blocks, mixed or cut group by group."""
    other, out = partners(x), x.clone()
    for views, weight, (top, bottom, left, right) in zip(drawn.groups, drawn.weight, drawn.cut, strict=True):
        if bottom:
            out[views, :, top:bottom, left:right] = other[views, :, top:bottom, left:right]
        else:
            out[views] = weight * x[views] + (1 - weight) * other[views]
    return out


def step_with(kind):
    """A step whose first group is mixed up, or cut."""
    return next(
        step for step in range(100) if bool(draws(np.arange(8), step=step).cut[0, 1]) is (kind == "cutmix")
    )


def test_normalisation_equals_torchvisions_bit_by_bit():
    aug = dataclasses.replace(STILL, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    batch = images(6)
    normalize = Normalize(aug.mean, aug.std)
    expected = torch.stack([normalize(to_tensor(image.numpy())) for image in batch])
    assert torch.equal(finish_evaluation(batch, aug), expected)
    assert torch.equal(finish_train(batch, labels(6), aug, CLASSES, **placed(np.arange(6)))[0], expected)


def test_the_batch_is_float32_in_channels_last_memory_and_the_source_is_untouched():
    batch = images(16)
    before = batch.clone()
    x, y = finish_train(batch, labels(16), AUG, CLASSES, **placed(np.arange(16)))
    assert x.shape == (16, 3, SIZE, SIZE)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert (x.dtype, y.dtype) == (torch.float32, torch.float32)
    assert torch.equal(batch, before)


@pytest.mark.parametrize("part", [8, 40, 64, 136])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_parts_of_the_batch_are_finished_as_the_whole(part, step):
    whole = finished(np.arange(512), step=step)
    parts = [finished(np.arange(at, min(at + part, 512)), step=step) for at in range(0, 512, part)]
    for index in (0, 1):
        assert torch.equal(torch.cat([one[index] for one in parts]), whole[index])


def test_ranks_that_hold_lanes_of_the_batch_finish_them_as_the_whole():
    whole, slots = finished(np.arange(512)), np.r_[64:128, 320:384]
    part = finished(slots)
    for index in (0, 1):
        assert torch.equal(part[index], whole[index][slots])


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_views_are_mixed_with_the_partner_four_places_away(kind):
    aug, step, slots = dataclasses.replace(AUG, erase=0.0), step_with(kind), np.arange(24)
    x, plain = finished(slots, aug, step)[0], finished(slots, STILL)[0]
    assert torch.allclose(x, mixed(plain, draws(slots, aug, step)), atol=1e-6)
    assert not torch.allclose(x, plain, atol=1e-2)


def test_a_view_never_meets_another_view_of_its_image():
    """Three or four repeats in a row, wherever the row begins."""
    for repeats in (2, 3, 4):
        for shift in range(repeats):
            image = (np.arange(480) + shift) // repeats
            assert (image.reshape(-1, 8) != image.reshape(-1, 8)[:, PARTNER]).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_soft_targets_are_timms_for_the_same_lambda(kind, smoothing):
    aug, step = dataclasses.replace(AUG, smoothing=smoothing), step_with(kind)
    drawn, target = draws(np.arange(8), aug, step), torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])
    y = soft_targets(target, drawn, aug, CLASSES)
    for views, weight in zip(drawn.groups, drawn.weight, strict=True):
        theirs = mixup_target(target[views], CLASSES, weight, smoothing)  # pairs by reversal: (i, i + 4)
        assert torch.allclose(y[views], theirs, atol=1e-7)
    assert torch.allclose(y.sum(1), torch.ones(8), atol=1e-6)
    assert ((y > smoothing / CLASSES + 1e-3).sum(1) == 2).all()


def test_without_mixing_targets_are_smoothed_labels():
    y = soft_targets(torch.tensor([2, 0, 1]), draws(np.arange(3), STILL), STILL, 4)
    assert torch.allclose(y, torch.eye(4)[[2, 0, 1]] * 0.9 + 0.1 / 4)


def test_erased_boxes_hold_normal_noise_and_the_rest_its_pixels():
    aug = dataclasses.replace(AUG, mixup=0.0, cutmix=0.0, erase=1.0)
    x, plain = finished(np.arange(64), aug)[0], finished(np.arange(64), STILL)[0]
    drawn, noise = draws(np.arange(64), aug), []
    for view, (top, left, height, width) in enumerate(drawn.erase.tolist()):
        assert height
        noise.append(x[view, :, top : top + height, left : left + width].flatten())
        x[view, :, top : top + height, left : left + width] = 0
        plain[view, :, top : top + height, left : left + width] = 0
    assert torch.equal(x, plain)
    assert kstest(torch.cat(noise).numpy(), "norm").pvalue > 0.01
    assert len(torch.cat(noise).unique()) > 0.95 * len(torch.cat(noise))


def test_noise_is_laid_before_views_are_mixed():
    """As in timm, where erasing belongs to the image and mixing to the batch."""
    aug, step = dataclasses.replace(AUG, erase=1.0, cutmix=0.0), 0
    x = finished(np.arange(16), aug, step)[0]
    erased = finished(np.arange(16), dataclasses.replace(aug, mixup=0.0), step)[0]
    assert torch.allclose(x, mixed(erased, draws(np.arange(16), aug, step)), atol=1e-6)


def test_labels_and_draws_must_belong_to_the_images():
    with pytest.raises(AssertionError, match="per view"):
        finish_train(images(16), labels(8), AUG, CLASSES, **placed(np.arange(16)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_cuda_device_finishes_the_same_batch():
    for step in range(4):
        here, there = finished(np.arange(512), step=step), finished(np.arange(512), step=step, device="cuda")
        assert there[0].is_cuda
        assert there[1].is_cuda
        assert torch.allclose(here[0], there[0].cpu(), atol=1e-4)
        assert torch.allclose(here[1], there[1].cpu(), atol=1e-6)


def test_the_noise_of_a_box_is_mixed_or_not():
    """The official order erases last: a box holds its own noise alone."""
    slots, last = np.arange(64), dataclasses.replace(AUG, erase=1.0, mix_first=True)
    step = step_with("mixup")
    drawn = draws(slots, last, step)
    assert (drawn.erase[:, 2] > 0).all()
    plain = dataclasses.replace(last, mixup=0.0, cutmix=0.0)
    ours, alone, mixed = (
        finished(slots, aug, step)[0] for aug in (last, plain, dataclasses.replace(last, mix_first=False))
    )
    for view, (top, left, height, width) in enumerate(drawn.erase):
        box = (view, slice(None), slice(top, top + height), slice(left, left + width))
        assert torch.equal(ours[box], alone[box])
        assert not torch.equal(mixed[box], alone[box])
