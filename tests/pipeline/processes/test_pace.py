"""What a run could be on its GPUs, and which rank is slow: counts, and real ranks whose clocks are given."""

import json

import pytest

from pipeline.config.overrides import compose
from pipeline.processes.pace import limits
from pipeline.training import models
from tests.pipeline.ranks import run_ranks
from tnt.complexity.formulas import model_macs

H100 = "NVIDIA H100 80GB HBM3"


def test_flop_utilisation_counts_three_forward_passes_at_the_peak_of_all_gpus():
    config = compose(["model=tnt_s"])
    macs = models.macs(config.model)
    assert macs == model_macs(config.model.network)
    one, eight = (limits(config.model.network, "bf16", macs, H100, world) for world in (1, 8))
    assert one["flop_utilisation"] == pytest.approx(989e12 / (6 * macs))
    assert eight == pytest.approx({name: 8 * most for name, most in one.items()})


def test_the_roofline_adds_what_the_words_of_a_tnt_must_move():
    config = compose(["model=tnt_s"])
    found = limits(config.model.network, "bf16", models.macs(config.model), H100, 1)
    # benchmarks/network/traffic.py: 0.154 and 0.231 GB for 256 images in a fused block.
    words = 12 * (0.154e9 + 0.231e9) / 256 / 3.35e12
    assert 1 / found["roofline_share"] == pytest.approx(1 / found["flop_utilisation"] + words, rel=0.01)
    other = compose(["model=timm:deit_small_patch16_224"])
    macs = models.macs(other.model)
    assert macs > 4e9
    same = limits(other.model.network, "bf16", macs, H100, 1)
    assert same["roofline_share"] == same["flop_utilisation"]


@pytest.mark.parametrize(
    ("device", "precision"), [("CPU x", "bf16"), ("NVIDIA Unheard-of", "bf16"), (H100, "fp32")]
)
def test_nothing_is_said_of_what_no_data_sheet_has(device, precision):
    config = compose(["model=tnt_s"])
    assert limits(config.model.network, precision, models.macs(config.model), device, 1) == {}


# Each rank's clock is given: a step of rank 1 takes 9 units, of the others 3; the first one takes long.
RANKS = """
import dataclasses, json, torch
from pipeline.processes.place import find_place
from pipeline.processes.ranks import joined
from pipeline.processes import pace
place, now = find_place(), [0.0]
pace.time.perf_counter = lambda: now[0]
with joined(place, torch.device("cpu"), 60) as ranks:
    own = pace.Pace(torch.device("cpu"))
    told = []
    for took in (1000 if ranks.rank == 2 else 500, *[9 if ranks.rank == 1 else 3] * 4):
        with own.working():
            now[0] += took
        found = own.slowest(ranks) if len(told) != 2 else None
        told.append(found and dataclasses.astuple(found))
    print(json.dumps(told))
"""


def test_a_slow_rank_is_named_to_all_and_the_first_step_does_not_count():
    ranks = [json.loads(out) for out in run_ranks(3, ["-c", RANKS])]
    assert ranks[0] == ranks[1] == ranks[2]
    first, *others = ranks[0]
    assert first is None
    assert [found and (found[0], found[2]) for found in others] == [(1, 3.0), None, (1, 3.0), (1, 3.0)]
