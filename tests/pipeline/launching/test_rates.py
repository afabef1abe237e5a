"""How fast a device trains: measured where anything was, else by a model that fits published rates of TNT."""

import dataclasses

import pytest

from ablations.spec import requested_runs
from pipeline.config import composition
from pipeline.config.identity import id_of, science
from pipeline.config.overrides import compose
from pipeline.launching import rates
from pipeline.launching.rates import Measurement, is_cpu, layout, local_device, rate, size
from pipeline.processes import device
from pipeline.runs import records
from pipeline.runs.records import Record
from tests.pipeline.runs.test_records import DATA, record
from tnt.complexity.formulas import model_macs

DEVICE = "a processor"


def trained(*overrides: str, **changes: object) -> Record:
    """A record of the config that the overrides compose."""
    config = compose(["scale=demo", *overrides])
    values = {"science": science(config), "id": id_of(science(config), DATA), "seed": config.seed}
    return dataclasses.replace(record(), **{**values, **changes})


def measured(*overrides: str, **changes: object) -> Measurement:
    return Measurement.of(trained(*overrides, **changes))


def calibrated(*overrides: str, of: float, device: str = DEVICE) -> Measurement:
    config = compose(["scale=demo", *overrides])
    model, ended = science(config)["model"], "2026-03-31T00:00:00Z"
    return Measurement(device, model, config.precision, of, ended, "a calibration", layout(config))


# timm's tables: results/benchmark-train-amp-…-rtx3090.csv, and benchmark-infer-amp-…-rtx4090.csv
@pytest.mark.parametrize(
    ("gpu", "model", "part", "published"),
    [
        ("NVIDIA GeForce RTX 3090", "tnt_s", 1, 342),
        ("NVIDIA GeForce RTX 3090", "timm:deit_small_patch16_224", 1, 1054),
        ("NVIDIA GeForce RTX 4090", "tnt_s", 3, 1730),  # a forward pass is a third of a training step
        ("NVIDIA GeForce RTX 4090", "timm:deit_small_patch16_224", 3, 8206),
    ],
)
def test_an_estimate_holds_what_was_published_in_its_range(gpu, model, part, published):
    found = rate(compose([f"model={model}"]), gpu, [])
    assert found.factor == 2
    assert not found.known
    assert found.images_per_second / 1.3 < published / part < 1.3 * found.images_per_second


def test_tnt_is_three_to_ten_times_dearer_than_its_multiply_adds_say():
    config = compose([])
    for gpu, peak in (("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA H100 80GB HBM3", 989e12)):
        by_macs = 0.4 * peak / (2 * 3 * model_macs(config.model.network))
        assert 3 < by_macs / rate(config, gpu, []).images_per_second < 10


def test_an_estimate_says_of_which_device_it_is():
    assert rate(compose([]), "NVIDIA H100 80GB HBM3", []).basis.startswith("estimated: 40% of an H100's peak")
    unknown = rate(compose([]), "", [])
    assert unknown.basis.endswith("(assumed)")
    assert unknown.factor == 4
    assert "on each of" in rate(compose(["engine.threads=3"]), "CPU of mine", []).basis


def test_a_network_of_timms_is_counted_once_and_has_a_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = compose(["model=timm:resnet18"])
    params, macs = size(science(config)["model"])
    assert (params, round(macs / 1e9, 2)) == (11_689_512, 1.81)
    assert rate(config, "NVIDIA A100", []).images_per_second > 0
    [kept] = (tmp_path / "tnt-lab").glob("size-*.json")
    monkeypatch.setattr("tnt.complexity.count.count_macs", None)  # nobody counts again
    assert size(science(config)["model"]) == (params, macs)
    assert kept.parent == composition.folder()


def test_the_networks_of_the_ablations_are_counted_beforehand(monkeypatch):
    """So that a plan knows them without torch."""
    runs = requested_runs("all")
    monkeypatch.setattr(rates.subprocess, "run", None)
    monkeypatch.setattr(composition, "kept", None)
    for each in runs:
        params, macs = size(science(each.config)["model"])
        assert params > 0 < macs


def test_the_same_network_on_the_same_device_was_measured():
    same = measured("recipe.lr=3e-4", "seed=3")  # another run, as quick
    found = rate(compose(["scale=demo"]), DEVICE, [same])
    assert found.images_per_second == record().images_per_second / record().world
    assert found.basis == f"measured by {same.source}"
    assert found.known
    assert found.factor == rates.MEASURED


def test_another_network_is_scaled_by_what_both_would_take():
    small = measured("model=tnt_ti", device="CPU of mine")
    config, other = compose(["scale=demo"]), compose(["scale=demo", "model=tnt_ti"])
    found = rate(config, "CPU of mine", [small])
    macs, others = model_macs(config.model.network), model_macs(other.model.network)
    assert found.images_per_second == pytest.approx(small.images_per_second * others / macs)
    assert found.basis == f"measured by {small.source}, scaled"
    assert (found.factor, found.known) == (rates.SCALED, True)


@pytest.mark.parametrize("other", [{"device": "another processor"}, {"images_per_second": 0.0}])
def test_what_was_measured_elsewhere_does_not_count(other):
    found = rate(compose(["scale=demo"]), "CPU of mine", [measured(**other)])
    assert not found.known
    assert found.basis.startswith("estimated: ")


def test_an_image_of_another_size_is_another_measurement():
    found = rate(compose(["scale=demo", "data.image_size=64"]), DEVICE, [measured()])
    assert found.basis.endswith("scaled")


def test_a_calibration_holds_for_its_kernels_and_micro_batch():
    known = [calibrated("engine.micro_batch=16", of=50.0), calibrated("engine.micro_batch=32", of=70.0)]
    for size_, expected in ((16, 50.0), (32, 70.0)):
        found = rate(compose(["scale=demo", f"engine.micro_batch={size_}"]), DEVICE, known)
        assert (found.images_per_second, found.basis) == (expected, "measured by a calibration")
    assert rate(compose(["scale=demo", "engine.micro_batch=48"]), DEVICE, known).factor == rates.SCALED


def test_what_was_told_counts_before_what_was_measured():
    found = rate(compose(["scale=demo"]), DEVICE, [measured()], told=12.0)
    assert (found.images_per_second, found.factor, found.known) == (12.0, 1.0, True)


def test_the_newest_measurement_counts():
    old = measured("seed=1", ended="2026-01-31T11:00:00Z")
    new = measured("seed=2", ended="2026-02-28T11:00:00Z", images_per_second=999.0)
    for known in ([old, new], [new, old]):
        assert rate(compose(["scale=demo"]), DEVICE, known).basis.endswith(new.source)


def test_gpus_are_those_that_are_shown(monkeypatch):
    monkeypatch.setattr(device, "_installed", lambda: ["NVIDIA A100"] * 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert device.gpus() == ["NVIDIA A100"] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.gpus() == []
    assert is_cpu(local_device(compose([])))


def test_records_read_back_serve_as_measurements(tmp_path):
    records.publish(trained(), tmp_path)
    known, problems = records.read_all(tmp_path)
    assert not problems
    found = rate(compose(["scale=demo"]), DEVICE, list(map(Measurement.of, known)))
    assert found.basis == f"measured by run {trained().id}"
