"""What a run will take, and how a budget guards it."""

import pytest

from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.launching.cost import STATE, check_budget, cost, work
from pipeline.launching.plan import PlannedRun


def test_the_papers_run_is_three_hundred_epochs_of_imagenet(tmp_path):
    config = compose([f"data.root={tmp_path}"])
    training = 300 * (1_281_167 // 1024) * 1024  # 1251 steps of 1024
    assert work(config) == training + 300 * 2 * 50_000 // 3


def test_a_set_of_unknown_size_has_no_cost(tmp_path):
    config = compose(["data.name=mine", f"data.root={tmp_path}"])
    assert work(config) is None
    found = cost(PlannedRun(config, ""), [], "", 8)
    assert (found.images, found.device_hours, found.hours) == (None, None, None)
    assert "size of its data" in found.basis
    with pytest.raises(UserError, match="not known"):
        check_budget(1e6, [found])


def test_devices_share_the_time_and_not_the_hours():
    run = PlannedRun(compose([]), "")
    one, eight = cost(run, [], "", 1), cost(run, [], "", 8)
    assert one.device_hours == eight.device_hours
    assert one.seconds == pytest.approx(8 * eight.seconds)
    assert one.disk > 24e6 * STATE * 3  # TNT-S has 23.8 million parameters


def test_hours_are_a_range():
    """147 hours of an A100 and 89 of an H100 by the traffic of memory alone, scaled from an RTX 3090."""
    for gpu, expected in (("NVIDIA A100-SXM4-80GB", 147), ("NVIDIA H100 80GB HBM3", 89)):
        low, high = cost(PlannedRun(compose([]), ""), [], gpu, 8).hours
        assert low < expected < high
        assert high == pytest.approx(4 * low)


def test_a_budget_counts_the_most_and_refuses_what_is_only_estimated():
    run = PlannedRun(compose([]), "")
    estimated = cost(run, [], "NVIDIA A100-SXM4-80GB", 8)
    with pytest.raises(UserError) as refused:
        check_budget(1e6, [estimated])
    for cure in ("action=calibrate", "cost.images_per_second=N", "of an A100's peak"):
        assert cure in str(refused.value)
    assert "\n" not in str(refused.value)
    told = cost(run, [], "NVIDIA A100-SXM4-80GB", 8, told=800.0)
    check_budget(told.hours[1], [told])
    with pytest.raises(UserError, match="nothing was started"):
        check_budget(1.9 * told.hours[1], [told, told])
