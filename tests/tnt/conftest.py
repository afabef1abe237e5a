from collections.abc import Callable

import pytest
import torch

from tnt import TNT, TNTConfig


@pytest.fixture
def tiny() -> Callable[..., TNT]:
    """A TNT in which no two sizes are equal (B=2 in the tests), its weights far from the initial ones."""

    def make(**changes: object) -> TNT:
        fields: dict = {
            "image_size": 24, "patch_size": 8, "word_edge": 2, "depth": 3, "patch_dim": 10, "word_dim": 6,
            "outer_heads": 5, "inner_heads": 3, "classes": 7,
        }  # fmt: skip
        torch.manual_seed(0)
        model = TNT(TNTConfig(**(fields | changes))).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        return model

    return make
