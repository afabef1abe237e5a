"""What a finished run leaves."""

import dataclasses
import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tnt
from pipeline.config.identity import run_id
from pipeline.config.overrides import compose
from pipeline.errors import UserError
from pipeline.files import append_row
from pipeline.runs import answers, records
from pipeline.runs.attempts import Attempt
from pipeline.runs.directory import ATTEMPTS, run_directory
from pipeline.runs.records import Measures
from pipeline.training import models
from pipeline.training.completion import complete
from pipeline.training.trainer import TrainingState

STATE = TrainingState(step=40, skipped=1, events=["said"])
RAW, EMA = Measures(90.0, 97.5, 0.3, 360), Measures(87.5, 97.5, 0.4, 360)
SMALL = ["scale=demo", "model.depth=1", "model.patch_dim=32", "model.outer_heads=2", "model.inner_heads=2"]


def answers_of(measures: Measures) -> np.ndarray:
    """That so many images have their right answer first, and so many among five."""
    rows = np.zeros(measures.images, answers.row_type(10))
    rows["place"] = 5
    rows["place"][: round(measures.top5 * measures.images / 100)] = 3
    rows["place"][: round(measures.top1 * measures.images / 100)] = 0
    return rows


def finished(tmp_path, *overrides, **more):
    config = compose([*overrides, f"paths.runs={tmp_path}/runs", f"paths.records={tmp_path}/records"])
    id = run_id(config, "f" * 64)
    run_directory(config, id).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    weights = models.create(config.model).state_dict()
    average = {name: tensor + 1 for name, tensor in weights.items()}
    for job, host in (("17", "one"), ("18", "two")):
        row = dataclasses.asdict(Attempt(0, 1e9, 2, (host,), job))
        append_row(run_directory(config, id) / ATTEMPTS, row)
    more = {"average": average, "measured": {"raw": RAW, "ema": EMA}} | more
    answered = more.get("answered", {"raw": answers_of(RAW), "ema": answers_of(EMA)})
    trainer = SimpleNamespace(
        config=config,
        ema=more["average"] and SimpleNamespace(state_dict=lambda: more["average"]),
        measured=more["measured"],
        answers=answered,
        state=STATE,
        loader=SimpleNamespace(damaged=lambda: 2),
        ranks=SimpleNamespace(world=2),
        device=torch.device("cpu"),
        engine=SimpleNamespace(accumulation=2),
        micro_batch=8,
        kernels="torch",
    )
    return config, complete(trainer, weights, id, "f" * 64, umask=0o022), weights, average


def test_weights_and_record_belong_together(tmp_path):
    config, record, _, average = finished(tmp_path, *SMALL)
    path = run_directory(config, record.id) / "model.safetensors"
    assert record.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert records.read(tmp_path / "records" / f"{record.id}.json") == record
    assert (record.exported, record.best, record.raw) == ("ema", EMA, RAW)
    model = tnt.TNT(config.model.network)
    assert record.params == models.count_parameters(model)
    models.load(model, path)
    assert torch.equal(model.head.weight, average["head.weight"])
    assert (record.hosts, record.jobs) == (("one", "two"), ("17", "18"))
    assert (record.started, record.steps, record.events) == ("2001-09-09T01:46:40Z", 40, ("said",))


def test_the_answers_lie_beside_the_records_which_name_their_hash_and_hold_which_were_right(tmp_path):
    _, record, _, _ = finished(tmp_path, *SMALL)
    path = tmp_path / "answers" / f"{record.id}.npz"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record.answers_sha256
    assert set(answers.read(path)) == {"raw", "ema"}
    assert np.array_equal(record.right_images(), answers.read(path)["ema"]["place"] == 0)


def test_the_answers_that_a_record_names_are_not_replaced(tmp_path):
    _, record, _, _ = finished(tmp_path, *SMALL)
    path = tmp_path / "answers" / f"{record.id}.npz"
    before = path.read_bytes()
    other = answers_of(EMA)[::-1]
    finished(tmp_path, *SMALL, answered={"raw": other, "ema": other})
    assert path.read_bytes() == before


def test_without_an_average_the_weights_themselves_are_left(tmp_path):
    config, record, weights, _ = finished(tmp_path, *SMALL, average=None, measured={"raw": RAW})
    model = models.create(config.model)
    models.load(model, run_directory(config, record.id) / "model.safetensors")
    assert torch.equal(model.head.weight, weights["head.weight"])
    assert (record.exported, record.ema) == ("raw", None)


def test_done_again_it_leaves_the_same(tmp_path):
    config, record, _, _ = finished(tmp_path, *SMALL)
    path = run_directory(config, record.id) / "model.safetensors"
    before = path.read_bytes()
    assert finished(tmp_path, *SMALL)[1].weights_sha256 == record.weights_sha256
    assert path.read_bytes() == before
    assert len(list((tmp_path / "records").glob("*.json"))) == 1


def test_a_network_of_timm_is_counted_too(tmp_path):
    _, record, _, _ = finished(tmp_path, "model=timm:test_vit", "data.image_size=32", "data.classes=3")
    assert record.params > 0
    assert record.macs
    assert record.macs > 100_000


def test_no_weights_with_nan_are_left(tmp_path):
    bad = {"head.bias": torch.full((10,), float("nan"))}
    with pytest.raises(UserError, match=r"head.bias holds NaN"):
        finished(tmp_path, *SMALL, average=bad)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not (tmp_path / "records").exists()


def test_the_packages_lie_beside_the_record(tmp_path):
    _, record, _, _ = finished(tmp_path, *SMALL)
    path = records.packages_path(tmp_path / "records", record.layout)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record.layout.packages
    assert f"torch=={record.versions['torch']}" in path.read_text().splitlines()
