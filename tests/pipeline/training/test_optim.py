"""Parameter groups and the learning rate."""

import math

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from pipeline.config.science import Recipe
from pipeline.training.optim import Schedule, optimizer
from tnt.config import TNTConfig
from tnt.model import TNT

SMALL = TNTConfig(
    image_size=16, patch_size=8, word_edge=4, depth=1, patch_dim=16, outer_heads=2, inner_heads=2, classes=3,
    se="outer",
)  # fmt: skip


def test_only_matrices_and_kernels_are_decayed():
    model = TNT(SMALL)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    adam = optimizer(model, Recipe(weight_decay=0.05))
    groups = {g["weight_decay"]: {names[id(p)] for p in g["params"]} for g in adam.param_groups}
    assert set(groups) == {0.0, 0.05}
    expected = {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim > 1 and name not in ("class_token", "patch_position", "word_position")
    }
    assert groups[0.05] == expected
    assert groups[0.05] | groups[0.0] == set(names.values())
    assert "blocks.0.outer.gate.fc1.weight" in groups[0.05]


def test_the_optimizer_is_torchs_with_the_recipes_values():
    adam = optimizer(TNT(SMALL), Recipe(lr=3e-4, beta2=0.95, eps=1e-6))
    assert type(adam) is torch.optim.AdamW
    assert all(group["betas"] == (0.9, 0.95) and group["eps"] == 1e-6 for group in adam.param_groups)


def test_the_rate_is_the_papers_curve():
    recipe = Recipe(epochs=300, warmup_epochs=5)
    schedule = Schedule(recipe, steps_per_epoch=10)

    def expected(step: int) -> float:
        if step < 50:
            return 1e-6 + (1e-3 - 1e-6) * step / 50
        return 1e-5 + (1e-3 - 1e-5) * (1 + math.cos(math.pi * step / 3000)) / 2

    for step in (0, 1, 49, 50, 51, 1500, 2999):
        assert schedule.lr(step) == pytest.approx(expected(step), rel=1e-12)


def test_the_rate_does_not_depend_on_what_was_asked_before():
    recipe = Recipe(epochs=6, warmup_epochs=2.5)
    once = Schedule(recipe, 7)
    rates = [once.lr(step) for step in range(42)]
    assert [Schedule(recipe, 7).lr(step) for step in reversed(range(42))] == rates[::-1]
    assert min(rates) == rates[0]


def test_all_groups_get_the_rate():
    adam = optimizer(TNT(SMALL), Recipe())
    schedule = Schedule(Recipe(), 10)
    assert schedule.apply(adam, 700) == schedule.lr(700)
    assert {group["lr"] for group in adam.param_groups} == {schedule.lr(700)}


def test_a_run_without_warm_up_starts_at_the_full_rate():
    assert Schedule(Recipe(warmup_epochs=0), 3).lr(0) == 1e-3


def test_the_official_rate_is_that_of_timms_scheduler_epoch_by_epoch():
    """As the official code drives it: by epochs, with ten more at the least rate."""
    recipe = Recipe(epochs=310, cooldown_epochs=10, lr_changes="epoch")
    ours = Schedule(recipe, steps_per_epoch=7)
    theirs = CosineLRScheduler(
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1e-3),
        t_initial=300,
        lr_min=1e-5,
        warmup_t=5,
        warmup_lr_init=1e-6,
    )
    for epoch in range(310):
        theirs.step(epoch)
        rate = theirs.optimizer.param_groups[0]["lr"]
        assert [ours.lr(7 * epoch + step) for step in (0, 6)] == [pytest.approx(rate, rel=1e-12)] * 2
    assert {ours.lr(7 * 300), ours.lr(7 * 310 - 1)} == {1e-5}
