"""Attention on a CPU in bf16, which goes by a way of its own, against float64."""

import pytest
import torch

from tnt.attention import NARROW, attend


def exact(q, k, v):
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return scores.softmax(dim=-1) @ v


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize("width", [6, NARROW, 64])
def test_bf16_on_a_cpu_is_float64_rounded(width, learning, autocast):
    q, k, v = (torch.randn(5, 3, 17, width, dtype=torch.bfloat16, requires_grad=learning) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = attend(q, k, v)
    assert out.dtype == torch.bfloat16
    oracles = [tensor.detach().double().requires_grad_() for tensor in (q, k, v)]
    expected = exact(*oracles)
    torch.testing.assert_close(out.double(), expected, rtol=0.02, atol=0.02)
    if learning:
        upstream = torch.randn_like(expected).bfloat16()
        out.backward(upstream)
        expected.backward(upstream.double())
        for tensor, oracle in zip((q, k, v), oracles, strict=True):
            torch.testing.assert_close(tensor.grad.double(), oracle.grad, rtol=0.03, atol=0.03)
