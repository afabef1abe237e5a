"""Published archives that lie: labels, names, lists and MATLAB files."""

import gzip
import io
import math
import pickle

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.data.packing.sources.cifar import LAYOUTS, cifar
from pipeline.data.packing.sources.imagenet import META, TRUTH, _validation_labels
from pipeline.data.packing.sources.oxford import flowers, pets
from pipeline.data.packing.sources.source import Expectation
from tests.faults.limits import refusal
from tests.pipeline.data.packing.sources.archived import tar_bytes

ANY = Expectation(2, {}, {})


def cifar_archive(labels: object, names: object = None) -> bytes:
    layout = LAYOUTS["cifar10"]
    members = {layout.meta: {layout.names: [b"a", b"b"] if names is None else names}}
    for batch in (name for batches in layout.batches.values() for name in batches):
        members[batch] = {b"data": np.zeros((2, 3072), np.uint8), layout.labels: labels}
    return tar_bytes({f"{layout.folder}/{name}": pickle.dumps(held, 2) for name, held in members.items()})


@pytest.mark.parametrize(
    "labels",
    [
        5,
        [0],
        [-1, 0],
        [2, 0],
        [2**40, 0],
        ["0", 0],
        [math.nan, 0],
        [0.5, 0],
        [True, None],
        None,
        "\x1b[2J",
        {},
    ],
    ids=repr,
)
def test_cifars_labels(labels, tmp_path, capsys):
    (tmp_path / "c.tar.gz").write_bytes(gzip.compress(cifar_archive(labels)))
    refusal(lambda: cifar("cifar10", tmp_path / "c.tar.gz", ANY), capsys)


@pytest.mark.parametrize("names", [5, [], "ab", ["a", "b"], [b"\xff", b"b"], [None, b"b"]], ids=repr)
def test_cifars_names(names, tmp_path, capsys):
    (tmp_path / "c.tar.gz").write_bytes(gzip.compress(cifar_archive([0, 1], names)))
    refusal(lambda: cifar("cifar10", tmp_path / "c.tar.gz", ANY), capsys)


def test_a_gzip_bomb(tmp_path, capsys):
    with gzip.open(tmp_path / "c.tar.gz", "wb", compresslevel=1) as file:
        for _ in range(120):
            file.write(bytes(1 << 20))
    assert "unpacks to more" in refusal(lambda: cifar("cifar10", tmp_path / "c.tar.gz", ANY), capsys)


def cells() -> np.ndarray:
    made = np.empty(2, object)
    made[:] = ["a", np.zeros(3)]
    return made


@pytest.mark.parametrize(
    "labels",
    [
        [[1e9]],
        [[1e18]],
        [[0]],
        [[-1]],
        [[1.5]],
        [[math.nan]],
        [[math.inf]],
        [[]],
        "text",
        cells(),
        [[1 + 2j]],
        np.ones((1, 2_000_000), np.uint8),
    ],
    ids=lambda value: repr(value)[:12],
)
@pytest.mark.parametrize("name", ["labels", "trnid"])
def test_flowers_numbers(name, labels, tmp_path, capsys):
    stored = {"labels": [[1, 2]], "trnid": [[1]], "valid": [[2]], "tstid": [[1]]} | {name: labels}
    savemat(tmp_path / "imagelabels.mat", {"labels": stored.pop("labels")}, do_compression=True)
    savemat(tmp_path / "setid.mat", stored, do_compression=True)
    images = {f"jpg/image_{i:05d}.jpg": b"" for i in (1, 2)}
    (tmp_path / "102flowers.tgz").write_bytes(gzip.compress(tar_bytes(images)))
    refusal(lambda: flowers(tmp_path, ANY), capsys)


@pytest.mark.parametrize(
    "line",
    [
        b"pug",
        b"pug_1 x",
        b"pug_1 0",
        b"pug_1 -1",
        b"pug_1 " + b"9" * 5000,
        b"pug_1 9999999",
        b"b\xfccher_1 1",
        b"\x1b[2J_1 1",
        b"pug_1 1.0",
    ],
    ids=repr,
)
def test_pets_lines(line, tmp_path, capsys):
    lists = {
        f"annotations/{name}.txt": b"# comment\n" + line + b" 1 1\n" if line != b"pug" else line
        for name in ("trainval", "test")
    }
    (tmp_path / "annotations.tar.gz").write_bytes(gzip.compress(tar_bytes(lists)))
    (tmp_path / "images.tar.gz").write_bytes(gzip.compress(tar_bytes({"images/pug_1.jpg": b""})))
    refusal(lambda: pets(tmp_path, ANY), capsys)


def synsets(**fields: object) -> bytes:
    values = {"ILSVRC2012_ID": 1, "WNID": "n01", "num_children": 0} | fields
    rows = np.array([tuple(values.values())], dtype=[(name, "O") for name in values])
    file = io.BytesIO()
    savemat(file, {"synsets": rows})
    return file.getvalue()


@pytest.mark.parametrize(
    ("truth", "meta"),
    [
        *(
            (text, synsets())
            for text in (b"", b"one", b"0", b"2", b"-1", b"1 1", b"9" * 5000, b"\xff", b"1.0")
        ),
        *(
            (b"1", synsets(**fields))
            for fields in (
                {"ILSVRC2012_ID": "x"},
                {"num_children": []},
                {"WNID": "n02"},
                {"num_children": 5},
                {"ILSVRC2012_ID": np.zeros(3)},
            )
        ),
        (b"1", b"garbage"),
        (b"1", b"MATLAB 5.0".ljust(124) + b"\0\1IM" + b"\x0f\0\0\0\xff\xff\xff\x7f" + b"x" * 100),
    ],
    ids=lambda value: repr(value)[:16],
)
def test_imagenets_kit(truth, meta, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / TRUTH).write_bytes(truth)
    (tmp_path / META).write_bytes(meta)
    refusal(lambda: _validation_labels(tmp_path, ["n01"], 1), capsys)
