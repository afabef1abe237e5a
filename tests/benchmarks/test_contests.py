"""The contestants of benchmarks/network/throughput.py."""

import sys

import pytest
import timm
import torch

from tests.sources import ROOT


@pytest.fixture
def contest(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "network"))
    from contests import Contest

    made = Contest("tnt_s", False, 1, "fp32", torch.device("cpu"), 0.0, ("plain",))
    yield made
    del sys.modules["contests"]


def test_a_rival_keeps_its_weights_and_is_counted_without_fvcore(contest, monkeypatch):
    """Zeros would multiply faster than its own weights."""
    rivals = []

    def small(contest, side, name):
        rivals.append(timm.create_model("deit_tiny_patch16_224", depth=1))
        return rivals[-1]

    monkeypatch.setattr(type(contest), "_network", small)
    monkeypatch.setitem(sys.modules, "fvcore", None)
    torch.manual_seed(0)
    entry = contest.enter("deit", "deit_small_patch16_224", "plain")
    [rival] = [one for one in rivals if not next(one.parameters()).is_meta]
    torch.manual_seed(0)
    fresh = small(contest, "", "").state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in rival.state_dict().items())
    d, n = 192, 197
    block = n * (4 * d * d + 2 * n * d + 8 * d * d)
    assert entry.macs == 196 * 3 * 16**2 * d + block + d * 1000
