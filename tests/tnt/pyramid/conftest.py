from collections.abc import Callable

import pytest
import torch
from torch import nn

from tnt.config import PyramidConfig
from tnt.pyramid.model import PyramidTNT


@pytest.fixture
def small() -> Callable[..., PyramidTNT]:
    """A PyramidTNT of sizes that differ (B=2 in the tests), its weights far from the initial ones."""

    def make(**changes: object) -> PyramidTNT:
        fields: dict = {
            "image_size": 128, "depths": (1, 7, 2, 1), "patch_dim": 10, "word_dim": 3, "outer_heads": 5,
            "inner_heads": 1, "mlp_ratio": 2, "classes": 7,
        }  # fmt: skip
        torch.manual_seed(0)
        model = PyramidTNT(PyramidConfig(**(fields | changes))).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_()
                    module.running_var.uniform_(0.5, 2.0)
        return model

    return make
