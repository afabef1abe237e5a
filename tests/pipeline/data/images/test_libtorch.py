"""libtorch's kernels beside torch's own Python, and what a process that uses them holds."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from pipeline.data.images.libtorch import NONE, call, several, tensor
from pipeline.data.images.resample import cubic_weights, resize_into, weigh_rows
from tests.pipeline.photographs import pixels
from tests.pipeline.ranks import environment

KERNELS = {
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.out,
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.out,
}


@pytest.mark.parametrize("interpolation", KERNELS)
def test_the_resize_is_torchs_to_the_bit(interpolation):
    slot, expected = np.zeros((2, 64, 64, 3), np.uint8)
    for window in (pixels("china.jpg"), pixels("flower.jpg")[10:300, 20:400]):
        resize_into(slot, window, interpolation)
        image, out = (torch.from_numpy(array).permute(2, 0, 1)[None] for array in (window, expected))
        KERNELS[interpolation](image, [64, 64], False, None, None, out=out)
        assert np.array_equal(slot, expected)
        assert slot.any()


def test_weighted_sums_are_torchs_to_the_bit():
    draw = np.random.default_rng(0)
    neighbours = draw.integers(0, 256, (50, 43, 3)).astype(np.float32)
    weights = cubic_weights(draw.random(50))
    flat, taps = torch.from_numpy(neighbours.reshape(50, -1)), torch.from_numpy(weights)[:, :, None]
    total = flat[:, :120] * taps[0]
    for tap in (1, 2, 3):
        total.addcmul_(flat[:, 3 * tap : 3 * tap + 120], taps[tap])
    assert np.array_equal(weigh_rows(neighbours, weights), total.numpy())


def test_an_error_of_libtorch_is_said():
    slot = np.zeros((1, 3, 8, 8), np.uint8)
    with pytest.raises(RuntimeError, match="output_size"):
        call(
            "aten::_upsample_bicubic2d_aa",
            "out",
            [tensor(slot), several([8]), 0, NONE, NONE, tensor(slot)],
            1,
        )


def test_many_calls_leave_nothing_behind():
    check = """
import resource, sys
import numpy as np
from pipeline.data.images.resample import cubic_weights, resize_into, weigh_rows
image, slot = np.zeros((200, 200, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)
neighbours, weights = np.zeros((64, 67, 3), np.float32), cubic_weights(np.zeros(64))
def work(times):
    for _ in range(times):
        resize_into(slot, image, "bicubic")
        weigh_rows(neighbours, weights)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(work(100), work(3000), "torch" in sys.modules)
"""
    out = subprocess.check_output([sys.executable, "-c", check], text=True, env=environment()).split()
    assert int(out[1]) - int(out[0]) < 2048  # kB
    assert out[2] == "False"
