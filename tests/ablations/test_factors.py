"""Cells of an ablation differ in what it varies and in nothing else; an override holds for all of them."""

import dataclasses

import pytest

from ablations.spec import Ablation, Cell, check, requested_runs
from pipeline.errors import UserError

SWITCH = Ablation("", "A switch", "To see.", ("model.se",), (Cell("a"), Cell("b", ("model.se=outer",))))


@pytest.mark.parametrize(
    ("second", "named"),
    [
        ("recipe.lr=1e-4", "recipe.lr"),
        ("seed=3", "seed"),
        ("precision=fp32", "precision"),
        ("model.depth=6", "model.depth"),
        ("data=cifar10", "data."),
    ],
)
def test_a_second_factor_is_refused(second, named):
    rows = (Cell("a"), Cell("b", ("model.se=outer", second)))
    with pytest.raises(
        UserError, match=r"cells a and b differ in .* too, but only model.se may vary"
    ) as error:
        check("mine", dataclasses.replace(SWITCH, rows=rows))
    assert named in str(error.value)


def test_what_must_follow_is_said_and_then_allowed():
    rows = (Cell("a"), Cell("b", ("model.se=outer", "model.inner_heads=2")))
    with pytest.raises(UserError, match=r"model\.inner_heads"):
        check("mine", dataclasses.replace(SWITCH, rows=rows))
    check("mine", dataclasses.replace(SWITCH, rows=rows, follows=("model.inner_heads",)))


def test_where_and_how_fast_a_cell_runs_is_no_factor():
    check("mine", dataclasses.replace(SWITCH, rows=(Cell("a"), Cell("b", ("engine.threads=2",)))))


@pytest.mark.parametrize("key", ["model.se=inner", "model.se=none"])
def test_what_is_varied_cannot_be_overridden(key):
    with pytest.raises(UserError, match=r"model\.se is for this ablation to set"):
        requested_runs("se", [key])


@pytest.mark.parametrize("key", ["model=tnt_ti", "data=flowers", "recipe=pretrain"])
def test_a_choice_that_cells_make_cannot_be_overridden(key):
    with pytest.raises(UserError, match="is for this ablation to set"):
        requested_runs("transfer", [key])


def test_a_value_that_no_cell_sets_can_be_overridden_for_all():
    for request in requested_runs("transfer", ["recipe.epochs=7", "recipe.warmup_epochs=0"]):
        assert (request.config.recipe.epochs, request.origin.recipe.epochs) == (7, 7)
    for request in requested_runs("inner_heads", ["model=tnt_b"]):
        assert request.config.model.network.depth == 12
        assert request.config.model.network.patch_dim == 640


def test_an_override_holds_for_every_cell():
    for request in requested_runs("inner_heads", ["recipe.epochs=100"]):
        assert request.config.recipe.epochs == 100


def test_cells_need_names_of_their_own():
    with pytest.raises(UserError, match="two cells have the same name"):
        check("mine", dataclasses.replace(SWITCH, rows=(Cell("a"), Cell("a", ("model.se=outer",)))))
    with pytest.raises(UserError, match="must be named in a–z"):
        check("mine", dataclasses.replace(SWITCH, rows=(Cell("a/../b"),)))
