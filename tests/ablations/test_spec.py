"""What the ablations ask for: the paper's rows, one thing varied, each run once."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import ablations
from ablations import spec
from ablations.spec import Peer, check, composed, load, origin, requested_runs
from pipeline.config.identity import science
from pipeline.errors import UserError
from pipeline.launching.plan import planned
from tests.pipeline.ranks import environment

# The paper's top-1 (and top-5), typed off its tables once more: what our files say must be this.
PAPER = {
    "imagenet": {
        "deit_s": (79.8,),
        "tnt_ti": (),
        "tnt_s": (81.3, 95.6),
        "tnt_s_se": (81.6, 95.7),
        "deit_b": (81.8,),
        "tnt_b": (82.8, 96.3),
    },
    "position_encoding": {"none": (80.5,), "patch": (80.8,), "word": (80.7,), "both": (81.3,)},
    "inner_heads": {"1": (81.0,), "2": (81.3,), "4": (81.3,), "8": (81.1,)},
    "patch_size": {"2": (81.0,), "4": (81.3,), "8": (81.1,)},
    "fine_grained": {
        f"{data}-{rate}": () for data in ("flowers", "pets") for rate in ("3e-5", "1e-4", "3e-4")
    },
    "se": {"none": (81.3, 95.6), "outer": (81.6, 95.7), "inner": (), "both": ()},
    "transfer": {
        "tnt_s-imagenet": (83.1,),
        "tnt_s-cifar10": (98.7,),
        "tnt_s-cifar100": (90.1,),
        "tnt_s-flowers": (98.8,),
        "tnt_s-pets": (94.7,),
        "tnt_b-imagenet": (83.9,),
        "tnt_b-cifar10": (99.1,),
        "tnt_b-cifar100": (91.1,),
        "tnt_b-flowers": (99.0,),
        "tnt_b-pets": (95.0,),
    },
    # The authors' README has all but TNT-Ti's, which is of the NeurIPS version of the paper.
    "pyramid": {
        "tnt_ti": (73.9,),
        "pyramid_ti": (75.2,),
        "tnt_s": (81.5,),
        "pyramid_s": (82.0,),
        "tnt_b": (82.9,),
        "pyramid_m": (83.5,),
        "pyramid_b": (84.1,),
    },
    "control": {"with": (), "without": ()},
    "recipe": {"deit_ti": (72.2,), "deit_s": (79.8,)},
    "repeats": {"plain": ()},
    "switches": {
        "plain": (),
        "heads": (),
        "edge": (),
        "patch_position": (),
        "word_position": (),
        "se": (),
        "larger": (),
    },
    "recipe_switches": {"plain": (), "bce": (), "lamb": (), "uniform": ()},
    "layer_decay": {"decay-100": (), "decay-85": (), "decay-75": (), "decay-65": ()},
    "rivals": {"tnt_s": (), "deit3_s": (), "swin_t": (), "pvt_v2_b2": ()},
}
OF_OTHERS = {
    "imagenet": {
        "ResNet-50": (76.2, 92.9),
        "ResNet-152": (78.3, 94.1),
        "RegNetY-8GF": (79.9,),
        "RegNetY-16GF": (80.4,),
        "GhostNet-A": (79.4, 94.5),
        "EfficientNet-B3": (81.6, 94.9),
        "EfficientNet-B4": (82.9, 96.4),
        "T2T-ViT_t-14": (80.7,),
        "ViT-B/16": (77.9,),
    },
    "transfer": {
        "Grafit ResNet-50": (79.6, 98.2),
        "Grafit RegNetY-8GF": (99.1,),
        "EfficientNet-B5": (83.6, 98.7, 91.1, 98.5),
        "ViT-B/16↑384": (77.9, 98.1, 87.1, 89.5, 93.8),
        "DeiT-B↑384": (83.1, 99.1, 90.8, 98.4),
    },
}


def test_the_tables_are_those_of_the_paper():
    tables = {name: ablation.table for name, ablation in load("all").items()}
    assert set(tables) == set(PAPER)
    assert {table: name for name, table in tables.items() if table} == {
        "4": "imagenet",
        "5": "position_encoding",
        "6": "inner_heads",
        "7": "patch_size",
        "8": "transfer",
    }


@pytest.mark.parametrize("name", PAPER)
def test_each_cell_has_the_papers_value(name):
    ablation = load(name)[name]
    columns = ("top1", "top5")
    found = {cell.name: tuple(cell.paper[c] for c in columns if c in cell.paper) for cell in ablation.cells}
    assert found == PAPER[name]
    peers = {row.label: tuple(row.paper.values()) for row in ablation.rows if isinstance(row, Peer)}
    assert peers == OF_OTHERS.get(name, {})


def test_what_the_authors_gave_later_stands_beside_it():
    cells = {cell.name: cell.paper for cell in load("imagenet")["imagenet"].cells}
    assert (cells["tnt_s"]["official_top1"], cells["tnt_s"]["official_top5"]) == (81.5, 95.7)
    assert (cells["tnt_b"]["official_top1"], cells["tnt_b"]["official_top5"]) == (82.9, 96.3)
    assert cells["tnt_ti"] == {"official_top1": 73.9}
    assert {name for name, each in load("all").items() if each.later} == {
        name for name, each in load("all").items()
        if any(key.startswith("official") for cell in each.cells for key in cell.paper)
    }  # fmt: skip


@pytest.mark.parametrize("name", PAPER)
def test_each_ablation_says_why_and_holds_to_what_it_varies(name):
    ablation = load(name)[name]
    assert ablation.title
    assert len(ablation.why) > 20
    check(name, ablation)


def test_networks_too_large_for_the_demo_are_run_at_the_papers_scale_alone():
    def asked(*overrides: str) -> list[str]:
        return [run.cell for run in requested_runs("imagenet", overrides)]

    assert asked() == ["deit_s", "tnt_ti", "tnt_s", "tnt_s_se", "deit_b", "tnt_b"]
    assert asked("scale=demo") == ["tnt_ti", "tnt_s", "tnt_s_se", "tnt_b"]
    with pytest.raises(UserError, match="ablation=recipe has no cell at this scale"):
        requested_runs("recipe", ["scale=demo"])
    assert ("tnt_s", "deit_s") not in load("imagenet")["imagenet"].at("demo").pairs


def test_the_controls_that_train_are_asked_for_by_one_name_and_repeats_bring_their_seeds():
    runs = requested_runs("controls")
    assert {(run.ablation, run.config.scale) for run in runs} == {("control", "demo")}
    assert [run.config.seed for run in requested_runs("repeats")] == [0, 1, 2, 3, 4, 5]
    assert [run.config.seed for run in requested_runs("repeats", seeds=(7,))] == [7]


def test_the_control_of_switches_has_each_setting_of_the_network_that_a_table_varies():
    varied = {name for each in load("all").values() if each.table for name in each.varies}
    control = load("switches")["switches"]
    plain, *others = (composed(control, cell).model.network for cell in control.cells)
    changed = {
        f"model.{name}"
        for other in others
        for name, value in dataclasses.asdict(other).items()
        if value != getattr(plain, name)
    }
    assert {name for name in varied if name.startswith("model.")} <= changed


def test_the_ablations_need_no_torch():
    check = (
        "import sys; from ablations import spec; spec.load('all'); "
        "spec.requested_runs('all', ['scale=demo']); "
        "print([m for m in ('torch', 'deepspeed', 'timm') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_words_of_table_7_keep_their_total_width():
    ablation = load("patch_size")["patch_size"]
    widths = {cell.name: composed(ablation, cell).model.network for cell in ablation.cells}
    assert {name: (net.words, net.c) for name, net in widths.items()} == {
        "2": (64, 6),
        "4": (16, 24),
        "8": (4, 96),
    }
    assert {net.words * net.c for net in widths.values()} == {384}


def test_a_fine_tune_starts_from_the_run_of_table_4():
    transfer = load("transfer")["transfer"]
    imagenet = load("imagenet")["imagenet"]
    for cell in transfer.cells:
        model = cell.name.split("-")[0]
        start = origin(transfer, cell)
        assert science(start) == science(composed(imagenet, imagenet.cell(model)))
        assert composed(transfer, cell).data.image_size == 384


def test_a_cell_by_a_seed_is_a_run_and_a_shared_cell_is_one(tmp_path):
    found = planned(requested_runs("all", ["scale=demo", f"paths.data={tmp_path}"], (0, 1)))
    assert all(run.id for run in found)
    for seed in (0, 1):
        [tnt_s] = [run for run in found if run.config.seed == seed and "imagenet/tnt_s" in run.labels]
        assert {label.split("/")[0] for label in tnt_s.labels} == {
            "imagenet",
            "position_encoding",
            "inner_heads",
            "patch_size",
            "se",
            "pyramid",
            "recipe_switches",
        }
        children = [run for run in found if run.after == tnt_s.id]
        assert children
        assert all(child.config.recipe.init == tnt_s.id for child in children)
        assert all(found.index(child) > found.index(tnt_s) for child in children)
    cells = sum(len(ablation.cells) for ablation in load("all").values())
    assert len(found) < 2 * cells


def test_cells_can_be_chosen():
    chosen = requested_runs("se", ["scale=demo"], (0, 3), ["none", "outer"])
    assert [(request.cell, request.config.seed) for request in chosen] == [
        ("none", 0),
        ("outer", 0),
        ("none", 3),
        ("outer", 3),
    ]
    with pytest.raises(UserError, match=r"unknown cell 'otter' .did you mean 'outer'"):
        requested_runs("se", (), (), ["otter"])


def test_ones_own_ablation_is_one_short_file(tmp_path, monkeypatch):
    (tmp_path / "my_depths.py").write_text(
        "from ablations.spec import Ablation, Cell\n"
        "ABLATION = Ablation('', 'Depth', 'To see.', ('model.depth',),\n"
        "    tuple(Cell(str(n), (f'model.depth={n}',)) for n in (6, 12)))\n"
    )
    (tmp_path / "my_slip.py").write_text("ABLATIONS = 3\n")
    monkeypatch.setattr(ablations, "__path__", [*ablations.__path__, str(tmp_path)])
    try:
        assert "my_depths" in spec.names()
        found = planned(requested_runs("my_depths"))
        assert [run.labels for run in found] == [("my_depths/6",), ("my_depths/12",)]
        with pytest.raises(UserError, match=r"my_slip.py says no ABLATION = Ablation"):
            load("my_slip")
    finally:
        for name in ("my_depths", "my_slip"):
            sys.modules.pop(f"ablations.{name}", None)


def test_every_file_here_is_an_ablation_or_known_not_to_be():
    ours = Path(ablations.__path__[0])
    files = {path.stem for folder in (ours, ours / "later") for path in folder.glob("*.py")} - {
        "__init__",
        *spec.NO_ABLATIONS,
    }
    assert set(spec.names()) == files
