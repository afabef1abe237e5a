"""The loss and the optimizer that a recipe asks for, and a rate that is a function of the step alone."""

import math
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, cast

import torch
from timm.optim import Lamb, param_groups_layer_decay, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pipeline.config.science import Recipe
from pipeline.errors import UserError
from tnt.model import TNT

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "bce": binary_cross_entropy_with_logits,
}
# The layers of a TNT, as timm's `group_matcher` says them; what is not named is the last one's.
TNT_LAYERS = {
    "stem": r"^(?:stem|to_patch|class_token|patch_position|word_position)",
    "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
}


class Objective:
    """The loss of a micro-batch.

    With a teacher, half of it is the cross-entropy with the class that the teacher finds likeliest, whatever
    was mixed (arXiv 2012.12877, Eq. 3): of a token of its own where the network has one.
    """

    def __init__(self, recipe: Recipe, teacher: nn.Module | None = None, precision: str = "fp32") -> None:
        self.loss, self.teacher, self.precision = LOSSES[recipe.loss], teacher, precision

    def of(self, images: Tensor) -> Callable[[Any, Tensor], Tensor]:
        """What makes a loss of the network's outputs for these images, and of their targets."""
        if self.teacher is None:
            return self.loss
        half = torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.no_grad(), half:
            answers = self.teacher(images).argmax(1)
        return partial(self._distilled, answers)

    def _distilled(self, answers: Tensor, outputs: Any, targets: Tensor) -> Tensor:
        own, distilled = outputs if isinstance(outputs, tuple) else (outputs, outputs)
        return (self.loss(own, targets) + cross_entropy(distilled, answers)) / 2


def optimizer(model: nn.Module, recipe: Recipe, fused: bool | None = None) -> torch.optim.Optimizer:
    """Biases, norms, and what the model names (positions, class token) are not decayed.

    `fused`: in one kernel, for a GPU; on a CPU it rounds otherwise than the runs that are recorded.
    """
    groups, betas = _groups(model, recipe), (recipe.beta1, recipe.beta2)
    if recipe.optimizer == "lamb":  # recipe.clip bounds its gradients, as those of the other
        return Lamb(groups, recipe.lr, betas=betas, eps=recipe.eps, max_grad_norm=None)
    return torch.optim.AdamW(
        groups, lr=recipe.lr, betas=betas, eps=recipe.eps, weight_decay=recipe.weight_decay, fused=fused
    )


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    named = cast("Callable[[], Collection[str]]", getattr(model, "no_weight_decay", set))()
    if recipe.layer_decay == 1:
        return param_groups_weight_decay(model, recipe.weight_decay, no_weight_decay_list=named)
    if isinstance(model, TNT):
        cast(Any, model).group_matcher = lambda coarse=False: TNT_LAYERS
    elif not hasattr(model, "group_matcher"):
        raise UserError(
            f"recipe.layer_decay={recipe.layer_decay:g} needs the layers of {type(model).__name__}: a method "
            "group_matcher(coarse), as timm's networks have it"
        )
    return param_groups_layer_decay(
        model, recipe.weight_decay, no_weight_decay_list=named, layer_decay=recipe.layer_decay
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
            group["lr"] = rate * group.get("lr_scale", 1.0)
        return rate
