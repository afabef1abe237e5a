"""Attention that goes by a way of its own: on a CPU in bf16, or of more sequences than a kernel takes."""

import pytest
import torch
import torch.nn.functional as F

from tnt import attention
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


def test_no_kernel_gets_more_sequences_than_it_takes(monkeypatch):
    """A GPU's grid ends at 65,535."""
    q, k, v = (torch.randn(11, 2, 5, 6) for _ in range(3))
    whole, given = attend(q, k, v), []
    kernel = F.scaled_dot_product_attention

    def counting(q, k, v):
        given.append(len(q))
        return kernel(q, k, v)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counting)
    monkeypatch.setattr(attention, "MOST_SEQUENCES", 4)
    assert torch.equal(attend(q, k, v), whole)
    assert given == [4, 4, 3]
