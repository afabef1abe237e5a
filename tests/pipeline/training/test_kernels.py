"""engine.kernels: who decides, what is said, and that a run keeps to what it began with."""

import pytest
import torch
from torch import nn

import tnt
from pipeline.config.machine import EngineConfig
from pipeline.errors import UserError
from pipeline.processes.place import Place
from pipeline.processes.ranks import Ranks
from pipeline.training import kernels
from pipeline.training.kernels import Load, choose, seconds

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LOAD = Load(images=2, precision="fp32", training=True)


@pytest.fixture
def ranks():
    from datetime import timedelta

    return Ranks(Place("plain"), timedelta(seconds=60))


@pytest.fixture
def model():
    sizes = {"image_size": 32, "patch_dim": 64, "outer_heads": 2, "word_dim": 4, "inner_heads": 2}
    return tnt.create_model("tnt_ti", depth=1, classes=3, **sizes)


def took(monkeypatch, **times):
    """The machine's times, given."""

    def given(config, name, device, load):
        if isinstance(times[name], Exception):
            raise times[name]
        return times[name]

    monkeypatch.setattr(kernels, "seconds", given)


@pytest.mark.parametrize(
    ("torch_s", "fused_s", "expected"), [(0.002, 0.001, "fused"), (0.001, 0.002, "torch")]
)
def test_auto_takes_the_faster_on_a_gpu_and_says_both_times(
    model, ranks, monkeypatch, torch_s, fused_s, expected
):
    took(monkeypatch, torch=torch_s, fused=fused_s)
    name, why = choose([model], "auto", CUDA, LOAD, ranks)
    assert name == expected
    assert f"{torch_s * 1e3:.2f} ms a block by PyTorch's, {fused_s * 1e3:.2f} ms fused" in why
    assert all(block.fused == (expected == "fused") for block in model.blocks)


def test_auto_goes_on_with_pytorch_where_the_kernels_fail_and_says_so(model, ranks, monkeypatch):
    took(monkeypatch, torch=0.001, fused=RuntimeError("Failed to find C compiler\nmore"))
    name, why = choose([model], "auto", CUDA, LOAD, ranks)
    assert name == "torch"
    assert why == "inner blocks by PyTorch's kernels: the fused ones failed here (Failed to find C compiler)"


def test_auto_on_a_cpu_is_pytorch_without_a_word(model, ranks):
    assert choose([model], "auto", CPU, LOAD, ranks) == ("torch", "")


def test_a_run_keeps_the_kernels_that_it_began_with(model, ranks, monkeypatch):
    took(monkeypatch, torch=0.002, fused=0.001)
    assert choose([model], "auto", CUDA, LOAD, ranks, before="torch")[0] == "torch"
    assert choose([model], "fused", CUDA, LOAD, ranks, before="torch")[0] == "fused"  # asked for
    assert choose([model], "auto", CPU, LOAD, ranks, before="fused")[0] == "torch"  # cannot be had


@pytest.mark.parametrize(
    ("network", "device", "reason"),
    [
        ("tnt", CPU, "they need a CUDA device, and this run is on cpu"),
        ("gated", CUDA, "the inner block has a gate"),
        ("other", CUDA, "Linear is no TNT"),
    ],
)
def test_fused_is_refused_where_it_cannot_be_had(model, ranks, network, device, reason):
    gated = tnt.TNT(model.config.replace(se="inner"))
    chosen = {"tnt": model, "gated": gated, "other": nn.Linear(2, 2)}[network]
    with pytest.raises(UserError, match=reason):
        choose([chosen], "fused", device, LOAD, ranks)
    if device is CUDA:
        assert choose([chosen], "auto", device, LOAD, ranks) == ("torch", "")


@pytest.mark.parametrize("training", [True, False])
def test_either_kernels_can_be_timed(model, monkeypatch, training):
    monkeypatch.setattr(kernels, "ROUNDS", 1)
    monkeypatch.setattr(kernels, "WARMING", 0)
    before = torch.get_rng_state()
    for name in ("torch", "fused"):
        assert seconds(model.config, name, CPU, Load(1, "bf16", training)) > 0
    assert before.equal(torch.get_rng_state())  # nothing that a run draws depends on it


def test_unknown_kernels_are_refused():
    with pytest.raises(UserError, match=r"engine\.kernels 'triton'.*torch"):
        EngineConfig(kernels="triton")
