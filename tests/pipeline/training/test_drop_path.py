"""Paths dropped in networks of timm's: by each image's key, whatever else is in its batch."""

import pytest
import timm
import torch
from torch import nn

from pipeline.config.science import ModelConfig, TimmConfig
from pipeline.training import models
from pipeline.training.drop_path import key_drop_paths


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "tnt_s_legacy_patch16_224"])
def test_the_paths_that_an_image_drops_in_a_network_of_timms_do_not_depend_on_its_batch(name):
    model = models.create(ModelConfig(f"timm:{name}", TimmConfig(32, 3, 0.5))).train()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # in training it does depend on the batch
                module.weight.fill_(1.0)  # a residual begins at 0
    images, keys = torch.randn(1, 3, 32, 32).repeat(6, 1, 1, 1), torch.arange(6) << 40
    whole = model(images, keys)
    parts = torch.cat([model(images[:2], keys[:2]), model(images[2:], keys[2:])])
    torch.testing.assert_close(parts, whole)
    assert len(whole.detach().unique(dim=0)) == 6  # one image, other paths
    assert model(images).ne(model(images)).any()  # without keys, torch's generator goes on
    torch.testing.assert_close(model.eval()(images, keys), model(images))


def test_checkpointing_drops_the_same_paths_of_a_network_of_timms():
    """One that calls each of its drop paths four times."""
    model = models.create(ModelConfig("timm:tnt_s_legacy_patch16_224", TimmConfig(32, 3, 0.5))).train()
    images, keys, gradients = torch.randn(2, 3, 32, 32), torch.arange(2), []
    for checkpointed in (False, True):
        model.set_grad_checkpointing(checkpointed)
        model.zero_grad()
        model(images, keys).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(map(torch.equal, *gradients))


def test_a_drop_path_that_is_called_again_drops_others_and_keeps_the_expectation():
    path = key_drop_paths(nn.Sequential(timm.layers.DropPath(0.25)))[0]
    path.keys = torch.randint(2**63 - 1, (10_000,), generator=torch.Generator().manual_seed(0))
    first, second = path(torch.ones(10_000, 2)), path(torch.ones(10_000, 2))
    assert first.mean().item() == pytest.approx(1, abs=0.02)
    assert (first * second).mean().item() == pytest.approx(1, abs=0.03)  # independent
