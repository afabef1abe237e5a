"""What a run will take is measured where anything was, and says what it is known from."""

import dataclasses

import pytest

from pipeline.config.identity import id_of, science
from pipeline.config.overrides import compose
from pipeline.launching.cost import STATE, cost, images_per_second, is_cpu, local_device, work
from pipeline.launching.plan import PlannedRun
from pipeline.processes import device
from pipeline.runs import records
from pipeline.runs.records import Record
from tests.pipeline.runs.test_records import DATA, record
from tnt.complexity.formulas import model_macs

DEVICE = "a processor"


def measured(*overrides: str, **changes: object) -> Record:
    """A record of the config that the overrides compose."""
    config = compose(["scale=demo", *overrides])
    values = {"science": science(config), "id": id_of(science(config), DATA), "seed": config.seed}
    macs = model_macs(config.model.network)
    return dataclasses.replace(record(), **{**values, "macs": macs, **changes})


def test_the_papers_run_is_three_hundred_epochs_of_imagenet(tmp_path):
    config = compose([f"data.root={tmp_path}"])
    training = 300 * (1_281_167 // 1024) * 1024  # 1251 steps of 1024
    assert work(config) == training + 300 * 2 * 50_000 // 3


def test_a_set_of_unknown_size_has_no_cost(tmp_path):
    config = compose(["data.name=mine", f"data.root={tmp_path}"])
    assert work(config) is None
    found = cost(PlannedRun(config, ""), [], "", 8)
    assert (found.images, found.device_hours) == (None, None)
    assert "size of its data" in found.basis


def test_the_same_network_on_the_same_device_was_measured():
    same = measured("recipe.lr=3e-4", "seed=3")  # another run, as quick
    rate, basis = images_per_second(compose(["scale=demo"]), [same], DEVICE)
    assert rate == same.images_per_second / same.world
    assert basis == f"measured by run {same.id}"


def test_another_network_is_scaled_by_multiply_adds():
    small = measured("model=tnt_ti")
    config = compose(["scale=demo"])
    rate, basis = images_per_second(config, [small], DEVICE)
    macs = model_macs(config.model.network)
    assert rate == pytest.approx(small.images_per_second / small.world * small.macs / macs)
    assert basis == f"measured by run {small.id}, scaled by multiply-adds"


@pytest.mark.parametrize(
    "other",
    [
        {"device": "another processor"},
        {"images_per_second": 0.0},
    ],
)
def test_what_was_measured_elsewhere_does_not_count(other):
    _, basis = images_per_second(compose(["scale=demo"]), [measured(**other)], "CPU of mine")
    assert basis.startswith("estimated: 40%")


def test_an_image_of_another_size_is_another_measurement():
    _, basis = images_per_second(compose(["scale=demo", "data.image_size=64"]), [measured()], DEVICE)
    assert basis.endswith("scaled by multiply-adds")


def test_an_estimate_says_of_which_device_it_is():
    config = compose([])
    macs = 3 * model_macs(config.model.network)
    rate, basis = images_per_second(config, [], "NVIDIA H100 80GB HBM3")
    assert basis == "estimated: 40% of an H100's peak"
    assert rate == pytest.approx(0.4 * 989e12 / 2 / macs)
    rate, basis = images_per_second(config, [], "")
    assert basis == "estimated: 40% of an A100's peak (assumed)"


def test_a_network_of_timms_is_known_once_it_was_trained():
    config = compose(["scale=demo", "model=timm:resnet18"])
    assert images_per_second(config, [], DEVICE) == (
        None,
        "nothing is known of timm:resnet18 before a run of it has ended",
    )
    values = {"science": science(config), "id": id_of(science(config), DATA)}
    known = dataclasses.replace(record(), **values)
    assert images_per_second(config, [known], DEVICE)[0] == known.images_per_second / known.world


def test_devices_share_the_time_and_not_the_hours():
    run = PlannedRun(compose([]), "")
    one, eight = cost(run, [], "", 1), cost(run, [], "", 8)
    assert one.device_hours == eight.device_hours
    assert one.seconds == pytest.approx(8 * eight.seconds)
    assert one.disk is not None
    assert one.disk > 24e6 * STATE * 3  # TNT-S has 23.8 million parameters


def test_the_newest_measurement_counts():
    old = measured("seed=1", ended="2026-01-31T11:00:00Z")
    new = measured("seed=2", ended="2026-02-28T11:00:00Z", images_per_second=999.0)
    for known in ([old, new], [new, old]):
        assert images_per_second(compose(["scale=demo"]), known, DEVICE)[1].endswith(new.id)


def test_gpus_are_those_that_are_shown(monkeypatch):
    monkeypatch.setattr(device, "_installed", lambda: ["NVIDIA A100"] * 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert device.gpus() == ["NVIDIA A100"] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.gpus() == []
    assert is_cpu(local_device(compose([])))


def test_records_read_back_serve_as_measurements(tmp_path):
    records.publish(measured(), tmp_path)
    known, problems = records.read_all(tmp_path)
    assert not problems
    assert images_per_second(compose(["scale=demo"]), known, DEVICE)[1] == f"measured by run {measured().id}"
