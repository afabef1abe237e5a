"""Numbers that no run can be made of are refused by their names, before anything starts."""

import dataclasses

import pytest

from pipeline.config.identity import science
from pipeline.config.overrides import compose
from pipeline.config.run import RunConfig, from_plain, plain
from pipeline.config.typed import flattened
from pipeline.data.loading.buffers import Buffers
from pipeline.errors import UserError
from pipeline.launching.arguments import parse
from tests.faults.kinds import sparse
from tests.faults.limits import refusal
from tnt.untrusted.pictures import RAISED, excess

VALUES = dict(flattened(plain(RunConfig())))
SHARED = ("model.image_size", "model.classes", "model.drop_path", "data.augmentation.image_size")
NUMBERS = [name for name, value in VALUES.items() if type(value) in (int, float) and name not in SHARED]
LISTS = [name for name, value in VALUES.items() if isinstance(value, list) and value]


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e308", "-1", "9" * 25, "9" * 5000])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_beyond_all_use(name, text, capsys):
    if (name, text) == ("data.loading.workers", "-1"):
        return  # as many as there are cores
    refusal(lambda: compose([f"{name}={text}"]), capsys)


@pytest.mark.parametrize("text", ["inf", "nan", "1e308", "-1"])
@pytest.mark.parametrize("name", LISTS)
def test_a_list_with_a_number_beyond_all_use(name, text, capsys):
    values = ",".join([text] * len(VALUES[name]))
    refusal(lambda: compose([f"{name}=[{values}]"]), capsys)


@pytest.mark.parametrize(
    "override",
    [
        *(f"model.channels={channels}" for channels in (0, 1, 4, -3)),
        *(f"model.depth={depth}" for depth in (0, 1_000_000, "9" * 30)),
        "data.image_size=16000000",
        "data.augmentation.crop_fraction=1e-300",
        *(
            f"data.augmentation.randaugment=rand-{part}"
            for part in ("ninf", "n1e9", "m-1", "minf", "n0", "p2", "mmaxinf")
        ),
        "data.root=a\0b",
        "recipe.lr=" + "[" * 900,
        "recipe.lr=" + "[" * 100_000,
        "recipe.lr={a:{b:1}}",
        "recipe.lr=\x1b[2J",
        "recipe.\x1b[2J=1",
        "\x1b]0;x\x07=1",
        "model=\x1b[2J",
    ],
    ids=lambda override: override[:40],
)
def test_a_setting_that_cannot_be(override, capsys):
    refusal(lambda: compose([override]), capsys)


def test_weights_to_start_from_that_no_memory_can_hold(tmp_path, capsys):
    sparse(tmp_path / "w.pth")
    config = compose([f"recipe.init={tmp_path}/w.pth"])
    assert "more than this machine's memory" in refusal(lambda: science(config), capsys)


@pytest.mark.parametrize(
    "text",
    [
        *("seeds=0..999999999", "seeds=9..0", "seeds=1" + "0" * 12, "max_gpu_hours=1e999", "power=.0"),
        *("cost.images_per_second=0", "cost.seconds=" + "9" * 5000, "seed=" + "9" * 400),
    ],
    ids=lambda text: text[:30],
)
def test_a_number_of_the_launcher_that_cannot_be(text, capsys):
    refusal(lambda: parse([text]) and compose([text]), capsys)


def test_a_limit_on_pixels_that_is_no_number(monkeypatch, capsys):
    monkeypatch.setenv(RAISED, "1e9")
    assert f"{RAISED}: '1e9' is no number from 1" in refusal(lambda: excess(b"", 8, 8), capsys)


def test_batches_that_no_memory_can_hold(capsys):
    refusal(lambda: Buffers(1024, (1 << 16, 4096, 4096, 3), workers=1), capsys)


@pytest.mark.parametrize("section", [field.name for field in dataclasses.fields(RunConfig)])
@pytest.mark.parametrize("value", [None, [], 5, "x", {"a": {"b": 1}}], ids=repr)
def test_a_section_that_is_none(section, value):
    values = plain(compose([])) | {section: value}
    if section in ("seed", "scale", "precision") and type(value) in (int, str):
        value = values[section] = [value]
    with pytest.raises(UserError, match=section):
        from_plain(values)
