import math
import random

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp
from timm.data.auto_augment import rand_augment_transform

from pipeline.data.augmentation.policy import DRAWS_PER_LAYER, NOTHING, OPERATIONS, Policy
from pipeline.errors import UserError

SAMPLES = 30_000
INTEGER_ARGUMENT = ("Posterize", "Solarize", "SolarizeAdd")
NO_ARGUMENT = ("AutoContrast", "Equalize", "Invert")


def timms_choices(text, seed=0):
    """What timm's transform does to SAMPLES views: [(name, argument), …] for each."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - timm draws from the global generators
    transform = rand_augment_transform(text, {"translate_const": 100, "img_mean": (128,) * 3})

    def record(name):
        # The argument alone: timm would pass the image, which here is the list of choices.
        return lambda choices, *argument, **_: [*choices, (name.removesuffix("Increasing"), *argument)]

    for operation in transform.ops:
        operation.aug_fn = record(operation.name)
    return [transform([]) for _ in range(SAMPLES)]


def our_choices(text, seed=1):
    policy = Policy.parse(text)
    u = np.random.default_rng(seed).random((SAMPLES, policy.layers * DRAWS_PER_LAYER))
    operation, argument = policy.draw(u)
    return [
        [(OPERATIONS[o], a) for o, a in zip(row, values, strict=True) if o != NOTHING]
        for row, values in zip(operation.tolist(), argument.tolist(), strict=True)
    ]


@pytest.fixture(
    scope="module",
    params=["rand-m9-mstd0.5-inc1", "rand-m7-n3-mstd1-p0.7", "rand-m9-mstd101-inc1", "rand-m20-mmax30-inc1"],
)
def both(request):
    return timms_choices(request.param), our_choices(request.param)


@pytest.mark.slow
def test_as_many_operations_fire_in_a_view_as_in_timms(both):
    counts = [np.bincount([len(view) for view in views], minlength=4) for views in both]
    table = np.array(counts)
    assert chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 0.01


def test_each_operation_strikes_as_often_as_in_timms(both):
    table = np.array(
        [
            [sum(choice[0] == name for view in views for choice in view) for name in OPERATIONS]
            for views in both
        ]
    )
    assert table.min() > SAMPLES / 40
    assert chi2_contingency(table).pvalue > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in NO_ARGUMENT])
def test_arguments_are_distributed_as_timms(both, name):
    theirs, ours = (
        np.array([choice[1] for view in views for choice in view if choice[0] == name], float)
        for views in both
    )
    if name not in INTEGER_ARGUMENT:
        assert ks_2samp(theirs, ours).pvalue > 0.001
        return
    values = np.union1d(theirs, ours)
    table = np.array([[(part == value).sum() for value in values] for part in (theirs, ours)])
    common = table.sum(0) >= 10
    pooled = np.column_stack([table[:, common], table[:, ~common].sum(1)])
    pooled = pooled[:, pooled.sum(0) > 0]
    assert pooled.shape[1] == 1 or chi2_contingency(pooled).pvalue > 0.001


def test_the_recipes_policy_is_two_of_fifteen_half_the_time():
    assert Policy.parse("rand-m9-mstd0.5-inc1") == Policy(9, 2, 0.5, 0.5, 10, True)
    assert Policy.parse("") is None
    assert math.isinf(Policy.parse("rand-m9-mstd101").deviation)


@pytest.mark.parametrize("text", ["randm9", "rand-m9-t3aw", "rand-9", "rand-q3"])
def test_a_policy_that_is_not_offered_is_refused_by_name(text):
    with pytest.raises(UserError, match=text.split("-")[0]):
        Policy.parse(text)
