"""AdamW as the recipe asks for it, and a learning rate that is a function of the step alone."""

import math
from collections.abc import Callable, Collection
from typing import cast

import torch
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

from pipeline.config.science import Recipe


def optimizer(model: nn.Module, recipe: Recipe, fused: bool | None = None) -> torch.optim.AdamW:
    """Biases, norms, and what the model names (positions, class token) are not decayed.

    `fused`: in one kernel, for a GPU; on a CPU it rounds otherwise than the runs that are recorded.
    """
    named = cast("Callable[[], Collection[str]]", getattr(model, "no_weight_decay", set))()
    return torch.optim.AdamW(
        param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=named),
        lr=recipe.lr,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )


class Schedule:
    """Linear warm-up, a cosine, then the cool-down, as timm's; a function of the step, so stateless."""

    def __init__(self, recipe: Recipe, steps_per_epoch: int) -> None:
        self._rounded_to = steps_per_epoch if recipe.lr_changes == "epoch" else 1
        dummy = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=recipe.lr)
        self._timm = CosineLRScheduler(
            dummy,
            t_initial=(recipe.epochs - recipe.cooldown_epochs) * steps_per_epoch,
            lr_min=recipe.min_lr,
            warmup_t=math.floor(recipe.warmup_epochs * steps_per_epoch),
            warmup_lr_init=recipe.warmup_lr,
            t_in_epochs=False,
        )

    def lr(self, step: int) -> float:
        """The rate of the step-th update, counted from 0."""
        self._timm.step_update(step // self._rounded_to * self._rounded_to)
        return float(self._timm.optimizer.param_groups[0]["lr"])

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> float:
        """Set it for the step-th update."""
        rate = self.lr(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate
