import json
from dataclasses import asdict
from importlib.metadata import version

import pytest
import torch
from torch import nn

from tnt.complexity import counted
from tnt.complexity import sizes as sizing
from tnt.complexity.count import Count, count_macs
from tnt.complexity.formulas import eq14_flops, eq15_flops, eq16_params, eq17_flops, eq18_params, model_macs
from tnt.complexity.paper import BASELINES, ROWS
from tnt.config import get_config


@pytest.fixture(scope="module")
def sizes():
    """Those that are kept."""
    found = [sizing.TNTSize(**values) for values in counted.kept()["tnt"]]
    return {(size.table, size.name): size for size in found}


def test_what_is_kept_was_counted_with_this_code_and_these_packages():
    """If not: python -m tnt.complexity --count --json > tnt/complexity/counted.json"""
    kept = counted.kept()
    assert kept["code"] == counted.code()
    assert kept["versions"] == {name: version(name) for name in kept["versions"]}
    assert [(size["table"], size["name"]) for size in kept["tnt"]] == [(row.table, row.name) for row in ROWS]
    assert [sizing.Baseline(**each["baseline"]) for each in kept["baselines"]] == list(BASELINES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["TNT-Ti (later version)", "TNT-S + SE", "PyramidTNT-Ti"])
def test_a_row_that_is_kept_is_what_counting_gives(sizes, name):
    (row,) = [row for row in ROWS if row.name == name]
    assert as_json(sizing.size_of(row)) == as_json(sizes[row.table, name])


@pytest.mark.nightly
def test_all_that_is_kept_is_what_counting_gives(capsys):
    assert sizing.main(["--count", "--json"]) == 0
    assert capsys.readouterr().out == counted.KEPT.read_text()


def as_json(size: sizing.TNTSize) -> str:
    return json.dumps(asdict(size))


def test_equations_15_and_16_are_14_with_equal_widths_and_ratio_4():
    assert eq14_flops(n=5, d=7, d_k=7, d_v=7, r=4) == eq15_flops(n=5, d=7) == 2 * 5 * 7 * (6 * 7 + 5)
    assert eq16_params(7) == 4 * 7 * 7 + 2 * 4 * 7 * 7


def test_equations_17_and_18_are_the_sums_of_their_parts():
    n, m, c, d = 3, 4, 5, 7
    assert eq17_flops(n, m, c, d) == n * eq15_flops(m, c) + n * m * c * d + eq15_flops(n, d)
    assert eq18_params(m, c, d) == eq16_params(c) + m * c * d + eq16_params(d)


def test_the_whole_network_by_formula_is_what_fvcore_counts(sizes):
    for size in sizes.values():
        assert not size.faults
        assert size.counted == size.formula, size.name


@pytest.mark.parametrize(
    "changes", [{"se": "inner"}, {"se": "both"}, {"mlp_ratio": 3}, {"classes": 0}, {"form": "legacy"}]
)
def test_the_formula_holds_for_every_switch(changes):
    config = get_config("tnt_s", depth=2, **changes)
    assert sizing._count(config)[1].matrix == model_macs(config)


@pytest.mark.parametrize(
    ("row", "eq17", "formula", "with_norms"),
    [
        (("1", "TNT-S"), 5.152, 5.217, 5.245),
        (("1", "TNT-B"), 13.885, 14.049, 14.096),
        (("–", "TNT-Ti (later version)"), 1.384, 1.404, 1.418),
    ],
)
def test_macs_of_the_variants(sizes, row, eq17, formula, with_norms):
    size = sizes[row]
    found = (size.eq17, size.formula, size.counted + size.normalised)
    assert [round(macs / 1e9, 3) for macs in found] == [eq17, formula, with_norms]


@pytest.mark.parametrize(
    ("row", "params", "eq17"),
    [
        (("7", "p′=2 (2 inner heads)"), 23.761, 5.043),
        (("7", "p′=4"), 23.844, 5.152),
        (("7", "p′=8"), 25.107, 5.910),
        (("4", "TNT-S + SE"), 24.744, 5.152),
        (("1", "TNT-B"), 65.554, 13.885),
    ],
)
def test_parameters_with_the_frozen_tensor(sizes, row, params, eq17):
    assert round(sizes[row].params_official / 1e6, 3) == params
    assert round(sizes[row].eq17 / 1e9, 3) == eq17


def test_trainable_parameters(sizes):
    found = [sizes[row].params for row in (("1", "TNT-S"), ("1", "TNT-B"), ("–", "TNT-S legacy form"))]
    assert [round(params / 1e6, 3) for params in found] == [23.769, 65.429, 23.755]


def test_every_figure_that_the_paper_prints_comes_out_when_rounded(sizes):
    """Its FLOPs with LayerNorm as fvcore counts it; its parameters with or without the frozen tensor."""
    for size in sizes.values():
        if size.table == "pyramid":  # whose README rounds 84.94 to 85.0
            assert size.params / 1e6 == pytest.approx(size.paper_params, rel=0.005)
            assert round(size.counted / 1e9, 1) == size.paper_flops, size.name
            continue
        if size.paper_flops:
            assert round((size.counted + size.normalised) / 1e9, 1) == size.paper_flops, size.name
        if size.paper_params and size.table != "8":  # which prints the parameters at 224 pixels
            both = {round(params / 1e6, 1) for params in (size.params, size.params_official)}
            assert size.paper_params in both, size.name


def test_baselines_are_measured_with_their_attention_counted():
    wanted = {"DeiT-S": (22.051, 4.599), "ResNet-50": (25.557, 4.089)}
    for baseline in BASELINES:
        if baseline.name in wanted:
            size = sizing.measure_baseline(baseline)
            assert size.faults == ()
            assert (round(size.params / 1e6, 3), round(size.counted / 1e9, 3)) == wanted[baseline.name]


def test_baselines_that_timm_lacks_are_not_measured():
    missing = [baseline for baseline in BASELINES if baseline.timm is None]
    assert {baseline.name for baseline in missing} == {"GhostNet-A", "T2T-ViT_t-14"}
    assert all(sizing.measure_baseline(baseline).counted is None for baseline in missing)


class OuterProduct(nn.Module):
    def forward(self, images):
        return torch.outer(images[0, 0, 0], images[0, 0, 1])


def test_an_operator_with_multiply_adds_that_nobody_counted_is_a_fault():
    count = count_macs(OuterProduct(), 3, 8)
    assert count.uncounted == ("aten::outer",)
    assert sizing.faults(formula=0, count=count) == ("aten::outer was not counted",)


def test_a_gap_that_layer_norm_does_not_explain_is_a_fault():
    explained = Count(matrix=1000, other={"layer_norm": 100}, uncounted=())
    assert sizing.faults(formula=1000, count=explained) == ()
    assert sizing.faults(formula=996, count=explained) == ()
    assert "differ by" in sizing.faults(formula=990, count=explained)[0]
    pooled = Count(matrix=1000, other={"layer_norm": 100, "adaptive_avg_pool2d": 100}, uncounted=())
    assert "differ by" in sizing.faults(formula=1000, count=pooled)[0]


def test_mmpretrains_figure_is_explained():
    parts = sizing.explain_mmpretrain()
    assert round(parts["printed"] / 1e9, 2) == 3.36
    assert round(parts["attention"] / 1e9, 3) == 1.868


def test_the_worked_example_comes_out_as_the_equations_say_and_not_as_the_text():
    example = sizing.explain_section_2_3()
    assert (round(example["flops_t"] / 1e6), round(example["flops_tnt"] / 1e6)) == (1446, 1603)
    assert round(example["flops_ratio"], 3) == 1.108
    assert round(example["params_ratio"], 3) == 1.084


def test_the_command_prints_every_row_and_machines_read_the_same(capsys):
    assert sizing.main([]) == 0
    printed = capsys.readouterr().out
    assert all(row.name in printed for row in (*ROWS, *BASELINES))
    assert sizing.main(["--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert [size["name"] for size in read["tnt"]] == [row.name for row in ROWS]
    assert read["tnt"][0]["formula"] == model_macs(get_config("tnt_s"))


def test_where_the_code_is_another_the_command_counts(monkeypatch, capsys):
    monkeypatch.setattr(counted, "code", lambda: "another")
    monkeypatch.setattr(sizing, "ROWS", ())
    monkeypatch.setattr(sizing, "BASELINES", [one for one in BASELINES if one.name == "DeiT-S"])
    assert sizing.main(["--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert (read["code"], read["tnt"]) == ("another", [])
    assert read["baselines"][0]["counted"] == counted.of_timm("deit_small_patch16_224", 224)["counted"]


def test_a_fault_ends_the_command_with_exit_1(monkeypatch, capsys):
    monkeypatch.setattr(sizing, "ROWS", ROWS[:1])
    monkeypatch.setattr(sizing, "BASELINES", ())
    monkeypatch.setattr(sizing, "model_macs", lambda config: 1)
    assert sizing.main(["--count"]) == 1
    assert "TNT-S: formula and count differ by +5.217 G" in capsys.readouterr().err


def test_counting_leaves_the_network_as_it_is():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Dropout()).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert count_macs(network, 3, 8).matrix == 6 * 6 * 2 * 3 * 9
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
