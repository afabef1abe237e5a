"""Which shapes the kernels take, in tiles of whole patches, and what is refused with the reason."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tnt.fused.test_fused import ALL
from tnt.fused.tiles import misfit, tile_for

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"se": "inner", "word_dim": 8, "inner_heads": 2}, "gate"),
        ({"patch_size": 12, "word_edge": 1}, "144 words"),
        ({"word_dim": 132}, "132 wide"),
        ({"patch_size": 8, "word_edge": 1, "word_dim": 96}, "shared memory"),
    ],
)
def test_what_the_kernels_cannot_compute_is_refused_with_the_reason(tiny, changes, reason):
    model = tiny(depth=1, **changes)
    assert reason in misfit(model.config)
    with pytest.raises(ValueError, match=reason):
        model.set_kernels("fused")


def test_unknown_kernels_are_refused(tiny):
    with pytest.raises(ValueError, match="unknown kernels 'cuda'; valid: torch, fused"):
        tiny().set_kernels("cuda")


@pytest.mark.parametrize(("m", "c", "heads"), ALL)
def test_a_tile_holds_whole_patches(m, c, heads):
    tile = tile_for(m, c, heads)
    assert tile.R % m == 0
    assert c <= tile.C
    assert c // heads <= tile.E
    assert tile.warps in (1, 2, 4, 8)


@pytest.mark.slow
def test_the_kernels_compile_for_a_hopper_gpu_and_fit_into_it(tmp_path):
    """With Triton's own compiler, which needs no GPU: the interpreter takes what it would refuse."""
    command = [sys.executable, "benchmarks/network/compiled.py", "--shapes", "16,24,4"]
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    forward, backward = (line.split(" | ") for line in done.stdout.splitlines()[2:])
    assert (forward[1], backward[1]) == ("forward", "backward")
    assert forward[4] == "0"  # nothing of the forward pass is spilled
