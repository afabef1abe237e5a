"""What happens to samples that cannot be used, decided alike on every rank."""

import logging

import pytest

from pipeline.data.loading.damage import NONE, DamagedSamples, Limits
from pipeline.errors import WorkFailed
from tests.pipeline.data.loading.test_sampler import made_up

FIVE = Limits(total=5e-3, shard=0.03)  # 5 of 1000 samples, 3 of a shard's 100


def test_a_sample_is_named_once_however_often_it_is_reported(caplog):
    damage = DamagedSamples(made_up(1000), FIVE)
    with caplog.at_level(logging.WARNING):
        damage.agree([{7: "has another hash"}, {}])
        damage.agree([{}, {7: "has another hash"}])
    assert [record.getMessage() for record in caplog.records] == [
        "sample '00000007' of x-0000.tar is not used: has another hash"
    ]
    assert damage.hand_over({7: "has another hash"}) == {}


def test_the_total_limit_stops_and_names_what_to_replace():
    damage = DamagedSamples(made_up(1000), FIVE)
    damage.agree([{100 * n: "is gone"} for n in range(5)])
    with pytest.raises(
        WorkFailed, match=r"6 of 1000 samples .* limit is 5 .*'00000900' of x-0009.tar: is gone"
    ):
        damage.agree([{900: "is gone"}])


def test_the_limit_of_a_shard_stops_before_the_total():
    damage = DamagedSamples(made_up(1000), FIVE)
    damage.agree([{n: "is gone"} for n in range(3)])
    with pytest.raises(WorkFailed, match=r"4 of 100 samples of x-0000.tar .* limit is 3"):
        damage.agree([{3: "is gone"}])


def test_ranks_that_found_different_samples_decide_alike():
    reports = [{100 * n: f"rank {n}"} for n in range(6)]
    said = []
    for own in range(6):
        damage = DamagedSamples(made_up(1000), FIVE)
        damage.hand_over(reports[own])
        with pytest.raises(WorkFailed, match="limit is") as raised:
            damage.agree(reports)
        said.append(str(raised.value))
    assert len(set(said)) == 1


def test_a_small_set_may_lose_one_sample_and_evaluation_none():
    damage = DamagedSamples(made_up(1000), Limits())
    damage.agree([{1: "x"}])
    with pytest.raises(WorkFailed, match="limit is 1"):
        damage.agree([{999: "x"}])
    with pytest.raises(WorkFailed, match="limit is 0"):
        DamagedSamples(made_up(1000), NONE).agree([{1: "x"}])


def test_findings_wait_until_they_are_agreed_upon_and_are_handed_over_once():
    damage = DamagedSamples(made_up(1000), FIVE)
    one, two = {1: "x"}, {2: "y"}
    assert damage.hand_over(one) == one
    assert damage.hand_over(one | two) == two
    assert damage.fresh == one | two
    damage.agree([damage.fresh])
    assert damage.fresh == {}
    assert damage.known == {1: "x", 2: "y"}


def test_the_state_carries_what_was_agreed_and_nothing_that_lies_ahead():
    damage = DamagedSamples(made_up(1000), FIVE)
    damage.agree([{1: "x"}])
    damage.note(2)
    assert damage.bad(2)
    other = DamagedSamples(made_up(1000), FIVE)
    other.load(damage.state())
    assert other.bad(1)
    assert not other.bad(2)
