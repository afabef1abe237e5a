"""Whatever becomes of a file on its way, its reader says so in our words, or reads it.

`make fuzz` tries many more of the changes than a run of all tests.
"""

import contextlib
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

import tnt
from pipeline.config import run as configs
from pipeline.config.overrides import compose
from pipeline.config.run import RunConfig
from pipeline.data.images.decode import inspect_image
from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.cifar import unpickle
from pipeline.data.packing.sources.folder import folder
from pipeline.data.packing.sources.matlab import vector
from pipeline.data.shards.manifest import Manifest
from pipeline.data.shards.tar import scan_file, tar_samples
from pipeline.errors import UserError
from pipeline.runs import records
from tests.pipeline.data.packing.sources.archived import tar_bytes
from tests.pipeline.pictures import jpeg, plant, png
from tests.sources import ROOT
from tnt import weights

CHANGES = settings(
    max_examples=int(os.environ.get("FUZZ", "40")),
    derandomize="FUZZ" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TINY = tnt.TNTConfig(
    image_size=8, patch_size=8, word_edge=4, depth=1, patch_dim=8, outer_heads=2, inner_heads=1, classes=2
)


def _tar(path: Path) -> None:
    for sample in tar_samples(scan_file(path), path.name):
        sample.image(path.name)
        sample.label(lambda at, count: path.read_bytes()[at : at + count], path.name)


def _matlab() -> bytes:
    file = io.BytesIO()
    savemat(file, {"labels": [[1, 2, 3]]}, do_compression=True)
    return file.getvalue()


def _record() -> Path:
    return sorted((ROOT / "results/shipped").glob("*.json"))[0]


READERS: dict[str, Callable[[Path], object]] = {
    "k.tar": _tar,
    "k.jpg": lambda path: inspect_image(path.read_bytes()),
    "k.png": lambda path: inspect_image(path.read_bytes()),
    "set/train.manifest.json": lambda path: Manifest.read(path.parent, "train"),
    "set/train.index.npz": lambda path: Manifest.read(path.parent, "train"),
    "w.safetensors": weights.read,
    "w.pth": weights.read,
    "labels.mat": lambda path: vector(path.read_bytes(), "labels", path.name),
    "batch": lambda path: unpickle(path.read_bytes(), path.name),
    "config.yaml": configs.read,
    "record.json": lambda path: records.read(path.rename(path.with_name(_record().name))),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A sound file for each reader."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "k.tar").write_bytes(
        tar_bytes({"a.jpg": jpeg(), "a.cls": b"1", "b.png": png(), "b.json": b'{"label": 2}'})
    )
    (root / "k.jpg").write_bytes(jpeg())
    (root / "k.png").write_bytes(png())
    plant(root / "pictures", {"train/a/x.png": png(), "train/b/y.png": png()})
    make(folder(root / "pictures"), root / "set", Packing(workers=1))
    for name in ("w.safetensors", "w.pth"):
        weights.save(tnt.TNT(TINY), root / name)
    (root / "labels.mat").write_bytes(_matlab())
    (root / "batch").write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, 2))
    configs.write(compose([]), root / "config.yaml")
    (root / "record.json").write_bytes(_record().read_bytes())
    return root


@pytest.mark.parametrize("name", READERS)
@CHANGES
@given(data=st.data())
def test_a_changed_file(name, data, corpus):
    path = corpus / name
    sound = path.read_bytes()
    changed = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed)))
        piece = data.draw(st.binary(max_size=8) | st.sampled_from([b"", b"9" * 40, b"[" * 40, b"\xff" * 8]))
        changed[at : at + data.draw(st.sampled_from([0, 1, len(piece), len(changed)]))] = piece
    path.write_bytes(changed)
    said = None
    try:
        READERS[name](path)
    except ValueError as error:
        said = error
    finally:
        (path.with_name(_record().name) if name == "record.json" else path).unlink(missing_ok=True)
        path.write_bytes(sound)
    # tnt raises plain ValueErrors of its own, with the file's name; one without it comes from elsewhere.
    assert said is None or isinstance(said, UserError) or path.name in str(said)


@CHANGES
@given(
    key=st.sampled_from(
        ["recipe.lr", "data.root", "data.augmentation.scale", "model", "model.depth", "seed"]
    ),
    value=st.text(max_size=12)
    | st.sampled_from(["[1,2", "${seed}", "${oc.env:HOME}", "{a:1}", "1e999", "0x10"]),
)
def test_an_override(key, value):
    with contextlib.suppress(UserError):
        assert isinstance(compose([f"{key}={value}"]), RunConfig)
