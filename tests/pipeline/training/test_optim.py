"""Parameter groups and the learning rate."""

import dataclasses
import math

import pytest
import torch
from timm.scheduler import CosineLRScheduler

from pipeline.config.science import Recipe
from pipeline.errors import UserError
from pipeline.training.optim import Objective, Schedule, optimizer
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


def test_layers_further_from_the_head_learn_more_slowly():
    """Each name's scale by hand: the stem is layer 0, then blocks, the norm with the last, and the head."""
    model = TNT(dataclasses.replace(SMALL, depth=3))
    adam = optimizer(model, Recipe(layer_decay=0.5, weight_decay=0.05))
    scales = {id(p): group["lr_scale"] for group in adam.param_groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in adam.param_groups for p in group["params"]}
    plainly = optimizer(model, Recipe(weight_decay=0.05)).param_groups
    for name, parameter in model.named_parameters():
        first = name.split(".")[0]
        layer = 1 + int(name.split(".")[1]) if first == "blocks" else {"norm": 3, "head": 4}.get(first, 0)
        assert scales[id(parameter)] == 0.5 ** (4 - layer), name
    assert decays == {id(p): group["weight_decay"] for group in plainly for p in group["params"]}
    rate = Schedule(Recipe(layer_decay=0.5), 10).apply(adam, 50)
    assert {group["lr"] for group in adam.param_groups} == {rate * 0.5**power for power in range(5)}
    with pytest.raises(UserError, match=r"layer_decay=0\.5 needs the layers of Linear"):
        optimizer(torch.nn.Linear(2, 2), Recipe(layer_decay=0.5))


def test_lamb_steps_as_its_paper_says():
    """Beside Algorithm 2 of arXiv 1904.00962, by hand, for two steps."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    recipe = Recipe(optimizer="lamb", lr=0.1, weight_decay=0.05, eps=1e-6)
    lamb = optimizer(layer, recipe)
    slow = {name: p.detach().clone().double() for name, p in layer.named_parameters()}
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in slow.items()}
    for step in (1, 2):
        for parameter in layer.parameters():
            parameter.grad = torch.randn_like(parameter)
        for name, parameter in layer.named_parameters():
            gradient, decay = parameter.grad.double(), 0.05 if parameter.ndim > 1 else 0.0
            m, v = moments[name]
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            moments[name] = m, v
            update = m / (1 - 0.9**step) / ((v / (1 - 0.999**step)).sqrt() + 1e-6) + decay * slow[name]
            trust = slow[name].norm() / update.norm() if decay else 1.0
            slow[name] = slow[name] - 0.1 * trust * update
        lamb.step()
        for name, parameter in layer.named_parameters():
            assert torch.allclose(parameter.double(), slow[name], rtol=1e-5, atol=1e-7), name


def test_the_losses_are_what_their_formulas_say():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 5), torch.rand(4, 5)
    images, labels = torch.zeros(4, 3, 2, 2), torch.tensor([1, 0, 4, 2])
    teacher = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    teacher.forward = lambda images: torch.nn.functional.one_hot(labels, 5).float()
    log = logits.double().log_softmax(1)
    soft = -(targets * log).sum(1).mean()
    hard = -log[torch.arange(4), labels].mean()
    p = logits.double().sigmoid()
    binary = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    assert Objective(Recipe()).of(images)(logits, targets) == pytest.approx(float(soft))
    assert Objective(Recipe(loss="bce")).of(images)(logits, targets) == pytest.approx(float(binary))
    distilled = Objective(Recipe(), teacher).of(images)
    assert distilled(logits, targets) == pytest.approx(float(soft + hard) / 2)
    other = torch.randn(4, 5)
    by_token = -other.double().log_softmax(1)[torch.arange(4), labels].mean()
    assert distilled((logits, other), targets) == pytest.approx(float(soft + by_token) / 2)
