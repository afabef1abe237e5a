"""engine.kernels: who decides, what is said, and that a run keeps to what it began with."""

import pytest
import torch
from torch import nn

import tnt
import tnt.fused.ops
from pipeline.config.machine import EngineConfig
from pipeline.errors import UserError
from pipeline.processes.place import Place
from pipeline.processes.ranks import Ranks
from pipeline.training import kernels
from pipeline.training.kernels import Load, choose, seconds

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HERE = CUDA if torch.cuda.is_available() else CPU  # where Triton's interpreter runs the kernels
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
    """The machine's times, given, and that the kernels compute the same."""
    monkeypatch.setattr(kernels, "seconds", lambda config, name, device, load: times[name])
    monkeypatch.setattr(kernels, "compare", lambda config, device, load: ("", "words off by nothing"))


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
    assert "words off by nothing" in why
    assert all(block.fused == (expected == "fused") for block in model.blocks)


def wrong_output(monkeypatch):
    right = tnt.fused.ops.inner

    def inner(words, *others):
        words, normed = right(words, *others)
        return words + 0.0001 * words.detach(), normed

    monkeypatch.setattr("tnt.fused.ops.inner", inner)


def wrong_gradient(monkeypatch):
    right = tnt.fused.ops.inner

    def inner(words, *others):
        return right(1.0001 * words - 0.0001 * words.detach(), *others)

    monkeypatch.setattr("tnt.fused.ops.inner", inner)


def no_number(monkeypatch):
    right = tnt.fused.ops.enrich
    monkeypatch.setattr("tnt.fused.ops.enrich", lambda *inputs: right(*inputs) * float("nan"))


def no_compiler(monkeypatch):
    def fail(*inputs):
        raise RuntimeError("Failed to find C compiler\nmore")

    monkeypatch.setattr("tnt.fused.ops.inner", fail)


@pytest.fixture
def fast_kernels(monkeypatch):
    """As on a GPU where the fused kernels are the faster."""
    monkeypatch.setattr(kernels, "seconds", lambda config, name, device, load: {"torch": 2, "fused": 1}[name])
    monkeypatch.setattr(kernels, "_why_not", lambda model, device: "")


@pytest.mark.slow
@pytest.mark.parametrize("before", ["", "fused"])
def test_auto_takes_kernels_that_compute_the_same_here_and_says_how_nearly(
    model, ranks, fast_kernels, before
):
    name, why = choose([model], "auto", HERE, LOAD, ranks, before)
    assert name == "fused"
    assert "off by" in why


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (wrong_output, "compute other numbers here: words off by 1.0e-04, by PyTorch's"),
        (wrong_gradient, "compute other numbers here: gradient of words off by 1.0e-04, by PyTorch's"),
        (no_number, "compute other numbers here: patches off by inf"),
        (no_compiler, "failed here (Failed to find C compiler)"),
    ],
)
def test_auto_never_takes_kernels_that_compute_other_numbers_here(
    model, ranks, fast_kernels, monkeypatch, fault, said
):
    fault(monkeypatch)
    before = "fused" if fault is wrong_output else ""  # nor where a run began with them on another GPU
    name, why = choose([model], "auto", HERE, LOAD, ranks, before)
    assert name == "torch"
    assert why.startswith(f"inner blocks by PyTorch's kernels: the fused ones {said}")
    assert len(why.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("form", ["official", "legacy"])
@pytest.mark.parametrize("training", [True, False])
def test_the_comparison_drops_paths_draws_nothing_of_the_runs_and_holds_in_either_form(model, form, training):
    before = torch.get_rng_state()
    config = model.config.replace(form=form, drop_path=0.3)
    problem, said = kernels.compare(config, HERE, Load(2, "fp32", training))
    assert problem == ""
    assert "allowed" in said
    assert before.equal(torch.get_rng_state())


def test_where_bits_must_come_again_nothing_is_chosen_by_time(model, ranks, fast_kernels):
    torch.use_deterministic_algorithms(True)
    try:
        assert choose([model], "auto", HERE, LOAD, ranks)[0] == "torch"
        assert choose([model], "fused", HERE, LOAD, ranks)[0] == "fused"  # asked for; they are deterministic
    finally:
        torch.use_deterministic_algorithms(False)


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


@pytest.mark.slow
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
