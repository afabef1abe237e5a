"""Files of weights: equal bytes for equal weights, and the mode that the umask says."""

import os
import subprocess
import sys

import pytest
import torch

import tnt
from tnt.weights import models as weights


@pytest.mark.slow
def test_equal_weights_are_equal_files(tmp_path):
    """In another process as well, where sets have another order: a hash of the file names the weights."""
    save = "import sys, torch, tnt, tnt.weights; torch.manual_seed(0); "
    save += "tnt.weights.save(tnt.create_model('tnt_ti', depth=1, classes=3), sys.argv[1])"
    here, there = (tmp_path / name for name in ("here.safetensors", "there.safetensors"))
    torch.manual_seed(0)
    weights.save(tnt.create_model("tnt_ti", depth=1, classes=3), here)
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", save, there], env=environment, check=True)
    assert here.read_bytes() == there.read_bytes()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_written_weights_have_the_mode_that_the_umask_says(tmp_path, name, umask, mode):
    before = os.umask(umask)
    try:
        weights.save(tnt.create_model("tnt_ti", depth=1), tmp_path / name)
    finally:
        os.umask(before)
    assert (tmp_path / name).stat().st_mode & 0o777 == mode
