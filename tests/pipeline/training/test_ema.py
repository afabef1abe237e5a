"""The moving average of the weights: against a slow oracle, and never far behind the run."""

import pytest
import torch

from pipeline.config.science import Recipe
from pipeline.training.ema import Ema


def average(start: torch.Tensor, decay: float = 0.99996, share: float = 0.07, steps: int = 100) -> Ema:
    return Ema({"w": start}, decay, share, steps)


def test_it_is_the_recursion_in_double_precision():
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(200, 5, 3, generator=generator)
    ema = average(weights[0], steps=200)
    slow = weights[0].double()
    for step, weight in enumerate(weights):
        beta = min(0.99996, 1 - 1 / (0.07 * 200), (1 + step) / (10 + step))
        slow = beta * slow + (1 - beta) * weight.double()
        ema.update({"w": weight}, step)
    torch.testing.assert_close(ema.state_dict()["w"].double(), slow, rtol=1e-5, atol=1e-6)


def test_the_official_decay_stands_for_the_official_run():
    steps = 300 * 1251
    assert average(torch.zeros(1), steps=steps).longest == 0.99996


@pytest.mark.slow
@pytest.mark.parametrize("steps", [30, 100, 3125, 100_000])
def test_a_short_run_is_not_left_behind(steps):
    """Weights that rise to 1 over the first half of the run and stay: the average must have arrived."""
    ema = average(torch.zeros(1), share=Recipe().ema_share, steps=steps)
    for step in range(steps):
        ema.update({"w": torch.tensor([min(1.0, 2 * step / steps)])}, step)
    assert ema.state_dict()["w"].item() == pytest.approx(1, abs=0.01)


def test_it_stays_fp32_for_weights_of_less():
    ema = average(torch.zeros(2, dtype=torch.bfloat16))
    ema.update({"w": torch.ones(2, dtype=torch.bfloat16)}, 0)
    assert ema.state_dict()["w"].dtype is torch.float32


def test_it_shares_no_memory_with_the_weights():
    weights = torch.zeros(2)
    ema = average(weights)
    weights.fill_(5)
    assert (ema.state_dict()["w"] == 0).all()


def test_whole_numbers_are_copied():
    ema = Ema({"n": torch.tensor(0), "w": torch.zeros(1)}, 0.9, 1.0, 100)
    ema.update({"n": torch.tensor(7), "w": torch.ones(1)}, 50)
    assert ema.state_dict()["n"].item() == 7


def test_saved_and_loaded_it_goes_on_bitwise():
    weights = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    whole = average(weights[0])
    for step in range(20):
        whole.update({"w": weights[step]}, step)
    first = average(weights[0])
    for step in range(9):
        first.update({"w": weights[step]}, step)
    second = average(torch.zeros(4))
    second.load_state_dict({name: tensor.clone() for name, tensor in first.state_dict().items()})
    for step in range(9, 20):
        second.update({"w": weights[step]}, step)
    assert torch.equal(second.state_dict()["w"], whole.state_dict()["w"])
    with pytest.raises(AssertionError):
        second.load_state_dict({"other": torch.zeros(4)})


def test_its_order_of_names_does_not_matter():
    """ZeRO hands weights out by group, not in the order of the module."""
    one = Ema({"a": torch.zeros(1), "b": torch.zeros(1)}, 0.9, 1.0, 100)
    one.update({"b": torch.full((1,), 2.0), "a": torch.full((1,), 1.0)}, 90)
    state = one.state_dict()
    assert state["b"].item() == pytest.approx(2 * state["a"].item())
