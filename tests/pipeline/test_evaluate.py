"""Evaluation: exact to the image against a loop by hand, for one and two ranks, from runs and from files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import evaluate
from pipeline.config import run as configs
from pipeline.config.overrides import compose
from pipeline.data import dataset
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.labels import Answers, answers
from pipeline.data.loading.loader import EvaluationLoader, Loading
from pipeline.errors import UserError
from pipeline.files import sha256
from pipeline.processes.place import find_place
from pipeline.processes.ranks import Ranks
from pipeline.runs.answers import NOT_COUNTED, from_text, path_of, read
from pipeline.training import models
from pipeline.training.evaluation import EvaluationStopped, confusion_of, measure
from tests.pipeline.ranks import ROOT, run_ranks

pytestmark = pytest.mark.xdist_group("evaluate")  # one run is measured by all

RUN = "0123456789ab"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Digits, and a run that left the weights of an untrained network."""
    root = tmp_path_factory.mktemp("lab")
    here = [f"paths.data={root}/data", f"paths.runs={root}/runs", f"paths.records={root}/results/records"]
    small = [
        "scale=demo",
        "model.depth=1",
        "model.patch_dim=32",
        "model.outer_heads=2",
        "model.inner_heads=2",
    ]
    config = compose([*here, *small])
    dataset.prepare(config.data)
    directory = root / "runs" / RUN
    directory.mkdir(parents=True)
    torch.manual_seed(0)
    model = models.create(config.model)
    torch.nn.init.normal_(model.head.weight)
    models.export(config, model.state_dict(), directory)
    configs.write(config, directory / "config.yaml")
    return root, here, small, config, model.eval()


def by_hand(config, model) -> tuple[float, float, float, np.ndarray, np.ndarray]:
    """Image by image: top-1, top-5, loss, confusion, and the probabilities of all classes."""
    manifest = dataset.open_split(config.data, "validation")
    aug = config.data.augmentation
    right = five = loss = 0.0
    confusion = np.zeros((10, 10), int)
    probabilities = []
    with EvaluationLoader(manifest, aug, batch=1, loading=Loading(workers=0)) as loader, torch.no_grad():
        for batch in loader:
            image = (batch.images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
            logits = model(image)[0].double()
            label = int(batch.labels[0])
            order = logits.argsort(descending=True).tolist()
            right += order[0] == label
            five += label in order[:5]
            loss += float(logits.logsumexp(0) - logits[label])
            confusion[label, order[0]] += 1
            probabilities.append(logits.softmax(0).numpy())
    n = len(manifest)
    return 100 * right / n, 100 * five / n, loss / n, confusion, np.array(probabilities)


def recorded(root: Path) -> dict:
    (path,) = (root / "results" / "evaluations").glob("*.json")
    values = json.loads(path.read_text())
    answers_path = path_of(root / "results" / "records", path.stem)
    assert sha256(answers_path) == values["answers_sha256"]
    values["answers"] = read(answers_path)["weights"]
    path.unlink()
    return values


def test_a_run_is_measured_exactly_to_the_image(lab, capsys):
    root, here, _, config, model = lab
    top1, top5, loss, confusion, probabilities = by_hand(config, model)
    assert evaluate.main([f"run={RUN}", *here, "engine.evaluation_batch=77", "per_class=true",
                          f"confusion={root}/confusion.png"]) == 0  # fmt: skip
    said = capsys.readouterr().out
    assert f"top-1 {top1:.3f} %, top-5 {top5:.3f} %, loss {loss:.4f}: 360 images of digits" in said
    for name in range(10):
        share = 100 * confusion[name, name] / confusion[name].sum()
        assert f"{share:6.2f} %  {name}" in said
    assert (root / "confusion.png").read_bytes().startswith(b"\x89PNG")
    values = recorded(root)
    assert (values["top1"], values["top5"], values["images"]) == (top1, top5, 360)
    assert values["loss"] == pytest.approx(loss, rel=1e-5)
    labels = dataset.open_split(config.data, "validation").label
    given = values["answers"]
    order = np.argsort(-probabilities, axis=1)[:, :5]
    assert np.array_equal(given["classes"], order)
    assert np.allclose(given["probabilities"], np.take_along_axis(probabilities, order, 1), atol=1e-3)
    assert np.allclose(given["label_probability"], probabilities[np.arange(360), labels], atol=1e-3)
    right = from_text(values["right"], 360)
    assert np.array_equal(right, order[:, 0] == labels)
    assert 100 * right.sum() / 360 == top1
    assert 100 * (given["place"] < 5).sum() / 360 == top5


def test_a_run_is_measured_at_the_size_and_with_the_data_settings_that_are_asked_for(
    lab, capsys, monkeypatch
):
    root, here, small, _, _ = lab
    config = compose([*here, *small, "data.image_size=64", "data.augmentation.crop_fraction=0.5"])
    larger = models.create(config.model).eval()
    models.load(larger, root / "runs" / RUN / "model.safetensors")
    waits = []
    monkeypatch.setattr(Ranks, "wait_at_most", lambda self, seconds: waits.append(seconds))
    asked = ["data.image_size=64", "data.augmentation.crop_fraction=0.5", "cluster.timeout=77"]
    evaluate.main([f"run={RUN}", *here, *asked])
    said = capsys.readouterr().out
    assert f"top-1 {by_hand(config, larger)[0]:.3f} %" in said
    assert "positions 48 → 64" in said
    values = recorded(root)
    assert values["data"]["image_size"] == values["model"]["image_size"] == 64
    assert values["loss"] == pytest.approx(by_hand(config, larger)[2], rel=1e-5)
    assert waits == [77]


@pytest.mark.slow
def test_two_ranks_measure_the_same(lab):
    root, here, _, config, model = lab
    command = [ROOT / "pipeline/evaluate.py", f"run={RUN}", *here]
    said = run_ranks(2, [*command, "engine.evaluation_batch=100", "engine.device=cpu"])
    top1, top5, loss, _, probabilities = by_hand(config, model)
    assert f"top-1 {top1:.3f} %, top-5 {top5:.3f} %, loss {loss:.4f}: 360 images" in said[0]
    assert said[1] == ""
    assert np.array_equal(recorded(root)["answers"]["classes"][:, 0], probabilities.argmax(1))


def test_a_file_of_weights_is_measured_as_the_run(lab, capsys):
    root, here, small, config, model = lab
    weights = root / "runs" / RUN / "model.safetensors"
    evaluate.main([f"weights={weights}", *here, *small])
    assert f"top-1 {by_hand(config, model)[0]:.3f} %" in capsys.readouterr().out
    recorded(root)


def test_timms_networks_are_fed_as_timm_says(lab, capsys):
    root, here, _, _, _ = lab
    network = ["model=timm:test_vit", "scale=demo"]
    config = compose([*here, *network])
    exported = root / "timm"
    exported.mkdir(exist_ok=True)
    path = models.export(config, models.create(config.model).state_dict(), exported)
    evaluate.main([f"weights={path}", *here, *network])
    assert recorded(root)["data"]["augmentation"]["mean"] == [0.5, 0.5, 0.5]
    model = models.create(config.model)
    model.default_cfg |= {"mean": (0.1, 0.2, 0.3), "crop_pct": 0.8, "interpolation": "bilinear"}
    aug = models.timm_preprocessing(model, Augmentation())
    assert (aug.mean, aug.crop_fraction, aug.interpolation) == ((0.1, 0.2, 0.3), 0.8, "bilinear")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([], "either run=<id> or weights=<file>"),
        (["run=a", "weights=b"], "either run=<id> or weights=<file>"),
        (["run=ffffffffffff"], "there is no such run"),
        (["run=../../etc"], "there is no such run"),
        (["weights=/nowhere"], "no weights at /nowhere"),
        ([f"run={RUN}", "model=tnt_b"], "has its own model"),
        ([f"run={RUN}", "data=cifar100"], "give data.classes alone"),
        ([f"run={RUN}", "data.image_size=50"], "50"),
        ([f"run={RUN}", "confusion=x.jpg"], "as .png or .svg"),
        ([f"run={RUN}", "confusion=/nowhere/x.png"], "a folder that exists"),
        ([f"run={RUN}", "per_class=maybe"], "per_class=maybe; valid: true, false"),
        ([f"run={RUN}", "wieghts=x"], "unknown setting 'wieghts'"),
    ],
)
def test_a_mistake_is_told_at_once(lab, asked, message):
    with pytest.raises(UserError) as caught:
        evaluate.main([*asked, *lab[1]])
    assert message in str(caught.value)


def test_weights_for_other_classes_are_refused_not_given_a_random_head(lab):
    root, here, small, _, _ = lab
    weights = root / "runs" / RUN / "model.safetensors"
    with pytest.raises(UserError, match="head for 10 classes"):
        evaluate.main([f"weights={weights}", *here, *small, "data.classes=11"])


def test_help_needs_no_torch():
    program = "import sys; sys.argv = ['evaluate.py', '--help']\nfrom pipeline import evaluate\n" \
        "try: evaluate.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-1] == "False"
    assert "run=<id>" in done.stdout


def test_reassessed_labels_allow_several_answers_and_leave_images_out(tmp_path):
    class Some:
        key = np.array([b"ILSVRC2012_val_00000002", b"ILSVRC2012_val_00000001", b"ILSVRC2012_val_00000003"])
        label = np.array([0, 0, 0])
        classes = tuple("abcd")
        root = tmp_path

    data = compose([f"data.root={tmp_path}", "data.classes=4", "data.labels=real"]).data
    with pytest.raises(UserError, match=r"data.labels=real needs .*real.json"):
        answers(data, Some)
    (tmp_path / "real.json").write_text("[[3], [1, 2], []]")
    table = answers(data, Some).right(np.array([0, 1, 2, -1]))
    assert table.astype(int).tolist() == [[0, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    (tmp_path / "real.json").write_text("[[3], [7], []]")
    with pytest.raises(UserError, match="no classes of 4"):
        answers(data, Some)


def test_numbered_classes_are_outputs_whatever_their_order():
    class Some:
        key = np.array([b"x"] * 12)
        label = np.arange(12)
        classes = tuple(sorted(map(str, range(12))))  # 0, 1, 10, 11, 2, …
        root = "there"

    data = compose(["data.classes=12", "data.labels=index"]).data
    assert answers(data, Some).classes[2] == (10,)
    Some.classes = tuple("abcdefghijkl")
    with pytest.raises(UserError, match="classes named 0 to 11"):
        answers(data, Some)


def logits_of(images: torch.Tensor) -> torch.Tensor:
    """A network whose logits depend on the image alone."""
    shift = images.flatten(1).sum(1, keepdim=True)
    return torch.cos(shift * torch.arange(1, 8)) * 3


def test_networks_share_one_pass_and_several_right_answers_or_none_count_as_they_should(lab):
    config = lab[3]
    manifest = dataset.open_split(config.data, "validation")
    draws = np.random.default_rng(0)
    allowed = [tuple(draws.choice(7, draws.integers(0, 3), replace=False).tolist()) for _ in manifest.label]
    labels, aug = Answers(allowed, 7), config.data.augmentation
    seen = []

    def first(images):
        seen.append(len(images))
        return logits_of(images)

    networks = {"raw": first, "ema": lambda images: -logits_of(images)}
    place, cpu = find_place(), torch.device("cpu")
    with EvaluationLoader(manifest, aug, batch=50, loading=Loading(workers=0)) as loader:
        found, _ = measure(networks, loader, labels, aug, Ranks(place), cpu, "fp32")
        with pytest.raises(EvaluationStopped):
            measure(networks, loader, labels, aug, Ranks(place), cpu, "fp32", lambda: True)
    assert len(seen) == 8
    for each in found.values():
        counted = [row for row, classes in enumerate(allowed) if classes]
        hits = [each.answers["classes"][row][0] in allowed[row] for row in counted]
        five = [bool(set(each.answers["classes"][row]) & set(allowed[row])) for row in counted]
        assert each.measures.images == len(counted)
        assert each.measures.top1 == 100 * sum(hits) / len(hits)
        assert each.measures.top5 == 100 * sum(five) / len(five)
        assert ((each.answers["place"] == NOT_COUNTED) == [not classes for classes in allowed]).all()
        confusion = confusion_of(each.answers, labels)
        assert (confusion.sum(), confusion.trace()) == (len(counted), sum(hits))
    assert (found["raw"].answers["classes"][:, 0] != found["ema"].answers["classes"][:, 0]).all()


def test_padding_counts_for_nothing():
    assert not Answers([(0,), (1,)], 2).right(np.array([-1, -1])).any()
