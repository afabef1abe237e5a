"""The moving average of the weights, in fp32, whose memory fits the run.

With decay β the average remembers about 1/(1 − β) updates: 25,000 with the official 0.99996, a fifteenth of
ImageNet's 375,000. A fine-tune of 3,000 updates under the same β would end near its random start. So the
memory is never longer than a share of the run, nor, early on, than about a ninth of the updates so far.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    def __init__(self, tensors: Mapping[str, Tensor], decay: float, share: float, steps: int) -> None:
        """`tensors` are the weights at the start, `steps` the updates of the whole run."""
        self.longest = min(decay, 1 - 1 / max(1.0, share * steps))
        self._average = {name: _copy(tensor) for name, tensor in tensors.items()}
        # In one operation all together; counters and other whole numbers (of BatchNorm) are copied.
        self._averaged = {name: one for name, one in self._average.items() if one.is_floating_point()}
        self._copied = {name: one for name, one in self._average.items() if not one.is_floating_point()}

    def decay(self, step: int) -> float:
        """β of the update after the step-th, counted from 0."""
        return min(self.longest, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take in the weights after the step-th update; they have the names and shapes of the start."""
        news = [tensors[name].float() for name in self._averaged]
        get_ema_multi_avg_fn(self.decay(step))(list(self._averaged.values()), news, None)
        for name, one in self._copied.items():
            one.copy_(tensors[name])

    def state_dict(self) -> dict[str, Tensor]:
        return dict(self._average)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        assert state.keys() == self._average.keys(), "the average of another network"
        for name, tensor in state.items():
            self._average[name].copy_(tensor)


def _copy(tensor: Tensor) -> Tensor:
    kept = tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
    return kept.clone(memory_format=torch.contiguous_format)
