"""What is read of a network of one's own, without running it, and how mistakes in it are told."""

import subprocess
import sys

import pytest

from pipeline.config.identity import completed, id_of, run_id, science
from pipeline.config.overrides import compose
from pipeline.config.run import from_plain, plain, read, write
from pipeline.errors import UserError
from tests.sources import ROOT
from tnt.own.files import find
from tnt.own.network import make, told

NETWORK = """
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from pipeline.errors import Range


@dataclass(frozen=True)
class Settings:
    \"\"\"Of a small network.\"\"\"

    image_size: int
    classes: int
    width: Annotated[int, Range(1, 64)] = 8
    scale: float = 1.0
    kind: str = "plain"
    more: tuple[int, ...] = (1, 2)
    limit: int | None = None

    def __post_init__(self):
        if self.width == 7:
            raise ValueError("width=7 is odd; take 8")


class Net(nn.Module):
    def __init__(self, config: Settings):
        super().__init__()
        self.head = nn.Linear(3, config.classes)
        self.wrong = config.kind == "wrong"

    def forward(self, images):
        if self.wrong:
            return images @ torch.zeros(5, 5)
        return self.head(images.mean((2, 3)))


def small(settings: Settings):
    return Net(settings) if settings.kind != "text" else "no network"
"""
WITH = ("model=net:Net", "recipe.drop_path=0")
DATA = "f" * 64


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With net.py, which Python has not imported before."""
    (tmp_path / "net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "net", raising=False)
    yield tmp_path
    sys.modules.pop("net", None)


def refusal(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        compose(overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_its_dataclass_is_the_section_model(folder):
    config = compose([*WITH, "model.width=16", "model.more=[3]", "data=cifar10", "model.scale=2"])
    network = config.model.network
    assert (network.image_size, network.classes, network.width) == (224, 10, 16)
    assert (network.more, network.scale, network.limit) == ((3,), 2.0, None)
    assert from_plain(plain(config)) == config
    write(config, folder / "config.yaml")
    assert read(folder / "config.yaml") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=net:Nett",), "has no class or function 'Nett' (did you mean 'Net'?)"),
        (("model=nett:Net",), "there is no module nett: neither nett.py in"),
        (("model=net.Net",), "unknown model 'net.Net'"),
        (("model=net:Net",), "net:Net has no setting drop_path; train it with recipe.drop_path=0"),
        ((*WITH, "model.widht=2"), "unknown setting of model 'widht' (did you mean 'width'?)"),
        ((*WITH, "model.width=65"), "model.width is 65; it must be from 1 to 64"),
        ((*WITH, "model.width=1.5"), "model.width=1.5 must be a whole number"),
        ((*WITH, "data.image_size=99999"), "model.image_size is 99,999"),
    ],
)
def test_settings_are_checked_as_all_others(folder, overrides, message):
    assert message.replace("99,999", "99999") in refusal(*overrides)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class Net(", "class Net((", "net.py:28: "),
        ("(self, config: Settings)", "(self, config)", "net.py:28: Net must take its settings as one"),
        ("@dataclass(frozen=True)\n", "", "net.py:11: Settings must be a dataclass"),
        ("kind: str", "kind: nn.Module", "net.py:19: kind is of type nn.Module; valid: int, float"),
        ("kind: str = \"plain\"", "kind: str", "net.py:19: kind has no default"),
        ("= \"plain\"", "= input()", "net.py:19: kind: input() must be written out"),
        ("    classes: int\n", "", "Settings lacks `classes: int`"),
        ("kind: str", "source: str", "net.py:19: source is a name that records use"),
        ("Range(1, 64)", "Range(1)", "net.py:17: width: a range has a least and a greatest value"),
        ("Range(1, 64)]", "5]", "net.py:17: width is annotated with what is no range"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_told_with_its_line(folder, old, new, message):
    assert old in NETWORK
    (folder / "net.py").write_text(NETWORK.replace(old, new, 1))
    assert message in refusal(*WITH)


def test_a_file_beside_it_that_no_id_would_know_is_refused(folder):
    (folder / "layers.py").write_text("")
    (folder / "net.py").write_text("import layers\n" + NETWORK)
    assert "imports layers, a file beside it that no id would know" in refusal(*WITH)


def test_the_id_holds_the_source_and_every_setting(folder):
    plainly = run_id(compose(WITH), DATA)
    assert run_id(compose([*WITH, "model.width=8"]), DATA) == plainly
    assert run_id(compose([*WITH, "model.width=9"]), DATA) != plainly
    held = science(compose(WITH))
    assert held["model"]["source"] == f"sha256:{find('net:Net').sha256}"
    assert id_of(completed(held), DATA) == plainly  # as a record is read
    (folder / "net.py").write_text(NETWORK + "\n")
    assert run_id(compose(WITH), DATA) != plainly


def test_all_files_of_a_package_count(folder):
    (folder / "nets").mkdir()
    for name, text in {"__init__": "", "layers": "", "mine": "from nets import layers\n" + NETWORK}.items():
        (folder / "nets" / f"{name}.py").write_text(text)
    found = find("nets.mine:Net")
    assert found.files == ("nets/__init__.py", "nets/layers.py", "nets/mine.py")
    (folder / "nets" / "layers.py").write_text("1\n")
    assert find("nets.mine:Net").sha256 != found.sha256


def test_nothing_of_it_is_run_before_it_is_made(folder):
    (folder / "net.py").write_text(NETWORK + "\nopen('canary', 'w')\n")
    program = (
        "import sys; from pipeline.config.overrides import compose; "
        f"compose({list(WITH)!r}); print('torch' in sys.modules, 'net' in sys.modules)"
    )
    command, env = [sys.executable, "-c", program], {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert not (folder / "canary").exists()


def test_what_goes_wrong_in_it_is_one_line_with_its_place(folder):
    import torch

    values = {"image_size": 8, "classes": 2}
    assert make("net:Net", values)(torch.zeros(1, 3, 8, 8)).shape == (1, 2)
    with pytest.raises(UserError, match=r"net\.py:25: width=7 is odd; take 8$"):
        make("net:Net", values | {"width": 7})
    with pytest.raises(UserError, match=r"net\.py:36: RuntimeError: "), told():
        make("net:Net", values | {"kind": "wrong"})(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match=r"small made str, no torch\.nn\.Module"):
        make("net:small", values | {"kind": "text"})
    with pytest.raises(ZeroDivisionError), told():  # a fault of ours stays one
        _ = 1 / 0
