"""Anchors: published weights are measured and compared; what is missing is named with the command for it."""

import dataclasses
import json

import pytest
import torch

from ablations.reporting import anchors
from ablations.reporting.anchors import ANCHORS, Anchor
from ablations.reporting.collect import collect
from ablations.spec import Peer, load
from pipeline.config.overrides import compose
from pipeline.data import dataset
from pipeline.data.loading.loader import EvaluationLoader, Loading
from pipeline.errors import UserError
from pipeline.launching.arguments import parse
from pipeline.runs.evaluations import Evaluation
from pipeline.training import models
from tests.ablations.recorded import write_evaluation
from tnt.weights.tensors import write_tensors

pytestmark = pytest.mark.xdist_group("anchors")  # its evaluations are shared

SMALL = ("model.depth=1", "model.patch_dim=32", "model.outer_heads=2", "model.inner_heads=2")


def by_hand(config, model) -> tuple[float, float]:
    """Top-1 and top-5, image by image, as the settings say that images are fed."""
    aug, places = config.data.augmentation, []
    manifest = dataset.open_split(config.data, "validation")
    with EvaluationLoader(manifest, aug, batch=1, loading=Loading(workers=0)) as loader, torch.no_grad():
        for batch in loader:
            image = batch.images.permute(0, 3, 1, 2).float() / 255
            image = (image - torch.tensor(aug.mean).view(3, 1, 1)) / torch.tensor(aug.std).view(3, 1, 1)
            places.append(model(image)[0].argsort(descending=True).tolist().index(int(batch.labels[0])))
    return 100 * sum(place < 1 for place in places) / 360, 100 * sum(place < 5 for place in places) / 360


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Random weights of a TNT and of a network of timm's as such files are published, and what they give."""
    root = tmp_path_factory.mktemp("anchors")
    paths = [f"paths.data={root}/data", f"paths.records={root}/results/records", f"paths.runs={root}/runs"]
    asked = ["scale=demo", *paths, "logging.tensorboard=false"]
    found = []
    networks = {"ours.test": ("tnt_s", SMALL), "theirs.test": ("timm:deit_tiny_patch16_224", ())}
    for name, (model, settings) in networks.items():
        config = compose([f"model={model}", "data=digits", *settings, *asked])
        dataset.prepare(config.data)
        torch.manual_seed(1)
        network = models.create(config.model).eval()
        torch.nn.init.normal_(network.head.weight)
        anchor = Anchor(name, model, {}, settings=settings)
        path = anchor.weights(root / "weights")
        path.parent.mkdir(parents=True)
        write_tensors(dict(network.state_dict()), {"format": "pt"}, path)
        if config.model.timm_name:  # as timm says that its networks are fed
            aug = models.timm_preprocessing(network, config.data.augmentation)
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, augmentation=aug))
        found.append(dataclasses.replace(anchor, known={"digits": by_hand(config, network)}))
    return root, asked, found


def request(shop, *words):
    root, asked, _ = shop
    return parse(["ablation=anchors", f"weights={root}/weights", *asked, *words])


def test_weights_give_what_a_loop_by_hand_gives_and_are_measured_once(shop, capsys):
    root, _, known = shop
    assert anchors.run(request(shop, "action=plan"), known) == 1  # nothing was measured
    assert not (root / "results").exists()
    assert anchors.run(request(shop), known) == 0
    said = capsys.readouterr().out
    assert "2 of 2 measured, 0 not as expected" in said
    written = {path: path.read_bytes() for path in (root / "results/evaluations").iterdir()}
    assert {json.loads(content)["anchor"] for content in written.values()} == {each.name for each in known}
    assert anchors.run(request(shop), known) == 0
    assert {path: path.read_bytes() for path in written} == written


def test_a_figure_that_does_not_come_out_is_a_failure(shop, capsys):
    known = shop[2]
    anchors.run(request(shop), known)
    top1, top5 = known[0].known["digits"]
    wrong = [dataclasses.replace(known[0], known={"digits": (top1 + 0.03, top5)})]
    assert anchors.run(request(shop), wrong) == 1
    assert "1 not as expected" in capsys.readouterr().out


def test_what_is_missing_is_named_with_the_command_that_gets_it(shop, capsys):
    root, asked, known = shop
    away = dataclasses.replace(known[0], name="tnt_z.in1k", known={"imagenet": (81.5, 95.7)})
    elsewhere = dataclasses.replace(known[0], known={"imagenet_v2": (70.0, 90.0)}, settings=())
    words = [text for text in asked if text != "scale=demo"]  # whose only data are digits
    full = parse(["ablation=anchors", f"weights={root}/weights", *words])
    assert anchors.run(full, [away, elsewhere]) == 1
    said = capsys.readouterr().out
    assert f"hf download timm/tnt_z.in1k model.safetensors --local-dir {root}/weights/tnt_z.in1k" in said
    assert "imagenet_v2: no train shards" in said
    assert "0 of 2 measured" in said


@pytest.mark.parametrize("action", ["status", "retry", "cancel"])
def test_other_actions_have_nothing_to_do(shop, action):
    with pytest.raises(UserError, match="trains nothing"):
        anchors.run(request(shop, f"action={action}"), ())


def test_the_report_has_anchors_and_rows_of_table_4_that_were_measured_here(tmp_path):
    folder = tmp_path / "evaluations"
    write_evaluation(folder, "resnet50.tv_in1k", "imagenet", 76.156)
    write_evaluation(folder, "resnet50.tv_in1k", "imagenet_real", 82.969)
    tables = {table.name: table for table in collect([tmp_path / "records"]).tables}
    row = next(row for row in tables["table4"].rows if row.label == "ResNet-50")
    assert {each.verdict for each in row.entries} == {"measured here"}
    assert [each.values for each in row.entries] == [(76.156,), (95.0,)]
    others = {
        each.verdict for row in tables["table4"].rows if row.peer for each in row.entries if not each.values
    }
    assert others == {"reported"}
    assert [(each.what, each.verdict) for each in tables["anchors"].checks] == [
        ("imagenet", "not as expected"),  # its top-5 is not 92.866
        ("imagenet_real", "not as expected"),
    ]


def test_an_edited_evaluation_does_not_count(tmp_path):
    folder = tmp_path / "evaluations"
    write_evaluation(folder, "resnet50.tv_in1k", "imagenet", 76.0)
    path = next(folder.iterdir())
    path.write_text(path.read_text().replace("76.0", "76.156"))
    found = collect([tmp_path / "records"])
    assert "anchors" not in [table.name for table in found.tables]
    assert "was edited: its answers are right for 76.0 %" in found.problems[0]


def test_every_anchor_is_a_network_that_timm_has_and_a_row_that_the_paper_has():
    import timm

    peers = {row.label for row in load("imagenet")["imagenet"].rows if isinstance(row, Peer)}
    known = timm.list_models(pretrained=True)
    for anchor in ANCHORS:
        assert anchor.name in known
        config = compose([f"model={anchor.model}", "data=imagenet", *anchor.settings])
        assert anchor.row in peers | {""}
        if config.model.timm_name:
            cfg = timm.get_pretrained_cfg(anchor.name)
            assert cfg.input_size == (3, config.data.image_size, config.data.image_size)
    assert {
        "ResNet-50",
        "ResNet-152",
        "RegNetY-8GF",
        "RegNetY-16GF",
        "EfficientNet-B3",
        "EfficientNet-B4",
    } == {anchor.row for anchor in ANCHORS if anchor.row}


def test_an_evaluation_is_of_its_own_weights():
    one = Evaluation("0" * 12, "resnet50.tv_in1k", "imagenet_v2", "a" * 64, 63.19, 84.64, 10_000, 100.0, "")
    assert anchors.measured_peers([one]) == {}
    assert anchors.measured_peers([dataclasses.replace(one, data="imagenet")]).keys() == {"ResNet-50"}
