"""The rule of the verdicts, figure by figure."""

import math
import random
import statistics

import pytest

from ablations.reporting import verdicts
from ablations.reporting.verdicts import difference_noise, evaluation_noise, judge, judge_order, run_noise

IMAGENET = 50_000


def verdict(ours: list[float], paper: float, images: int = IMAGENET) -> str:
    evaluation = evaluation_noise(paper, images)
    noise = difference_noise(evaluation, run_noise([ours], evaluation), len(ours), 1)
    return judge(statistics.fmean(ours) - paper, evaluation, noise)


def order(ahead: list[float], behind: list[float], images: int = IMAGENET) -> str:
    evaluation = evaluation_noise(statistics.fmean([*ahead, *behind]), images)
    noise = difference_noise(evaluation, run_noise([ahead, behind], evaluation), len(ahead), len(behind))
    return judge_order(statistics.fmean(ahead) - statistics.fmean(behind), noise)


def test_evaluation_noise_is_the_binomials():
    assert evaluation_noise(81.3, IMAGENET) == pytest.approx(0.174, abs=5e-4)
    assert evaluation_noise(98.7, 10_000) == pytest.approx(100 * math.sqrt(0.987 * 0.013 / 10_000), rel=1e-2)
    draws = random.Random(0)
    shares = [100 * sum(draws.random() < 0.8 for _ in range(500)) / 500 for _ in range(2000)]
    assert statistics.stdev(shares) == pytest.approx(evaluation_noise(80.0, 500), rel=0.05)


@pytest.mark.parametrize("percent", [0.0, 100.0])
def test_no_accuracy_is_certain(percent):
    assert 0 < evaluation_noise(percent, IMAGENET) < 0.01


def test_one_seed_has_a_spread_too():
    assert run_noise([[81.0], [81.2]], 0.17) == pytest.approx(0.17)
    assert run_noise([[81.0, 81.0]], 0.17) == pytest.approx(0.17 / math.sqrt(2))


def test_spreads_of_cells_are_pooled_and_many_seeds_outweigh_the_guess():
    cells = [[80.0, 80.4, 80.2], [70.1, 70.3, 70.5]]
    pooled = math.sqrt((4 * 0.2**2 + 0.17**2) / 5)
    assert run_noise(cells, 0.17) == pytest.approx(pooled)
    many = [random.Random(cell).gauss(80, 0.5) for cell in range(200)]
    assert run_noise([many], 0.17) == pytest.approx(statistics.stdev(many), rel=0.01)


@pytest.mark.parametrize(
    ("ours", "paper", "expected"),
    [
        ([81.3], 81.3, "reproduced"),
        ([81.6], 81.3, "reproduced"),
        ([80.96], 81.3, "reproduced"),  # 2e is 0.348
        ([80.9], 81.3, "within noise"),
        ([80.7], 81.3, "within noise"),  # 2σ of one run of ours and one of theirs is 0.60
        ([80.6], 81.3, "differs"),
        ([80.8, 80.82, 80.78, 80.81, 80.79], 81.3, "differs"),  # so small a spread leaves only e
        ([80.2, 81.4, 80.5], 81.3, "within noise"),  # and a large one excuses more
        ([82.5], 81.3, "differs"),  # better is no reproduction either
    ],
)
def test_a_figure_beside_the_papers(ours, paper, expected):
    assert verdict(ours, paper) == expected


def test_few_images_say_little():
    assert verdict([79.0], 81.3, images=360) == "reproduced"
    assert verdict([79.0], 81.3) == "differs"


@pytest.mark.parametrize(
    ("ahead", "behind", "expected"),
    [
        ([81.3], [81.1], "not supported"),  # Table 6, one seed each: 0.2 points are nothing
        ([81.3], [80.5], "supported"),  # Table 5, none against both
        ([80.5], [81.3], "contradicted"),
        ([81.1], [81.3], "not supported"),
        ([81.3, 81.32, 81.28], [81.0, 81.01, 80.99], "not supported"),  # 0.3 on 50,000 images
        ([81.5, 81.52, 81.48], [81.0, 81.01, 80.99], "supported"),
        ([81.3], [81.3], "not supported"),
    ],
)
def test_an_ordering_of_two_rows(ahead, behind, expected):
    assert order(ahead, behind) == expected


def test_chance_orders_are_seldom_supported():
    """Two equal networks, over and over: the rule's 2σ may be wrong about once in twenty."""
    draws = random.Random(1)
    wrong = 0
    for _ in range(1000):
        shared = draws.gauss(0, 0.17 * math.sqrt(0.5))  # of the images that both see
        one, other = (
            [80 + shared + draws.gauss(0, 0.17 * math.sqrt(0.5)) + draws.gauss(0, 0.1) for _ in range(3)]
            for _ in range(2)
        )
        wrong += order(one, other) != "not supported"
    assert wrong < 60


def test_a_control_needs_every_seed_within_its_range():
    assert verdicts.judge_range([99.0, 96.0], (95.0, 100.0)) == "as expected"
    assert verdicts.judge_range([99.0, 94.0], (95.0, 100.0)) == "not as expected"
