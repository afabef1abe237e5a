"""Tars, published archives and folders of images that lie, or that never end."""

import gzip
import io
import json
import math
import os
import pickle
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.data.packing.sources.cifar import LAYOUTS, cifar
from pipeline.data.packing.sources.folder import folder
from pipeline.data.packing.sources.imagenet import META, TRUTH, _validation_labels
from pipeline.data.packing.sources.oxford import flowers, pets
from pipeline.data.packing.sources.source import Expectation
from pipeline.shards import main as shards
from tests.faults.limits import refusal
from tests.pipeline.data.packing.sources.archived import tar_bytes
from tests.pipeline.pictures import jpeg, plant

DEEP = b'{"label":' * 900 + b"1" + b"}" * 900
ANY = Expectation(2, {}, {})

LABELS = {
    "cls": [
        b"",
        b"-1",
        b"999999999",
        b"9" * 5000,
        b"1e3",
        b"1.0",
        b"\xff",
        b"\x1b[2J",
        b"0x1",
        "١".encode(),
        b"1 1",
    ],
    "json": [
        b"",
        b"[]",
        b"null",
        DEEP,
        b'{"label": NaN}',
        b'{"label": "1"}',
        b'{"label": true}',
        b'{"label": 1e3}',
    ],
    "txt": [b"one", b"9" * 2_000_000],
}


@pytest.mark.parametrize(
    ("extension", "content"),
    [(name, one) for name in LABELS for one in LABELS[name]],
    ids=lambda value: repr(value)[:20],
)
def test_a_label_that_is_none(extension, content, tmp_path, capsys):
    (tmp_path / "a.tar").write_bytes(tar_bytes({"k.jpg": jpeg(), f"k.{extension}": content}))
    refusal(lambda: shards(["index", str(tmp_path), "--workers", "1"]), capsys)


def with_header(kind: bytes, content: bytes) -> bytes:
    """A tar whose first member is an extended header."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = kind, len(content)
    block = header.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)
    return block + tar_bytes({"k.jpg": jpeg(), "k.cls": b"0"})


HEADERS = {
    "a length of 5000 digits": (b"x", b"9" * 5000 + b" path=x\n"),
    "a size of 5000 digits": (b"x", b"5013 size=" + b"9" * 5002 + b"\n"),
    "a size of 10¹⁸": (b"x", b"28 size=" + b"9" * 18 + b"\n"),
    "a negative length": (b"x", b"-5 path=x\n"),
    "no length": (b"x", b" path=x\n"),
    "no keyword": (b"x", b"8 path\nx"),
    "a length beyond the header": (b"x", b"99 path=x\n"),
    "100 KB of records": (b"x", b"6 a=b\n" * 20_000),
    "a name of 100 KB": (b"L", b"n" * 100_000),
    "an unknown type": (b"Z", b""),
    "a link": (tarfile.SYMTYPE, b""),
    "a device": (tarfile.CHRTYPE, b""),
    "a FIFO": (tarfile.FIFOTYPE, b""),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_cannot_be(what, tmp_path, capsys):
    (tmp_path / "a.tar").write_bytes(with_header(*HEADERS[what]))
    refusal(lambda: shards(["index", str(tmp_path), "--workers", "1"]), capsys)


@pytest.mark.parametrize("key", ["\x1b]0;t\x07k", "k\u202e", "k\nl", "\udcff", "k\x00l"])
def test_a_key_that_commands_the_terminal_is_shown(key, tmp_path, capsys):
    damaged = {f"{key}.jpg".encode(errors="surrogateescape").decode(errors="surrogateescape"): b"none"}
    (tmp_path / "a.tar").write_bytes(tar_bytes(damaged | {next(iter(damaged))[:-4] + ".cls": b"0"}))
    refusal(lambda: shards(["index", str(tmp_path), "--workers", "1"]), capsys)


@pytest.mark.parametrize(
    "place", ["file", "file/below", "/proc/x", "/proc/self/x", "/dev/null", "x" * 5000, "a\0b"]
)
def test_an_output_where_nothing_can_be_made(place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    plant(tmp_path / "pictures", {"train/a/x.jpg": jpeg()})
    refusal(lambda: shards(["make", "folder", "pictures", place, "--workers", "1"]), capsys)


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


def to_itself(place):
    (place / "again").symlink_to("..")


def to_another(place):
    (place / "again").symlink_to(place)


FOLDERS = {
    "a loop": to_itself,
    "a link to itself": to_another,
    "a FIFO": lambda place: os.mkfifo(place / "y.jpg"),
    "a device": lambda place: (place / "y.jpg").symlink_to("/dev/zero"),
    "nothing": lambda place: (place / "y.jpg").symlink_to("nothing"),
    "a link in a circle": lambda place: (place / "y.jpg").symlink_to("y.jpg"),
    "a class in latin-1": lambda place: os.mkdir(os.fsencode(place.parent) + b"/b\xfccher"),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_a_folder_with(what, tmp_path, capsys):
    plant(tmp_path, {"train/a/x.jpg": jpeg()})
    FOLDERS[what](tmp_path / "train" / "a")
    refusal(lambda: folder(tmp_path), capsys)


@pytest.mark.parametrize(
    "change",
    [
        {"shards": [{}]},
        {"shards": 5},
        {"shards": [None]},
        {"classes": 5},
        {"classes": [1]},
        {"classes": []},
        {"samples": -1},
        {"samples": "2"},
        {"samples": 10**18},
        {"fingerprint": None},
        {"index": 5},
        {"format": "1"},
        {"split": "\x1b[2J"},
        *(
            {"shards": [{"name": "a.tar", "samples": samples, "bytes": 1, "sha256": ""}]}
            for samples in (-1, 10**9, 10**18, 10**19, 1.5)
        ),
        *(
            {"shards": [{"name": name, "samples": 1, "bytes": 1, "sha256": ""}]}
            for name in ("../a.tar", "/etc/passwd", "", "\x1b[2J\n.tar")
        ),
    ],
    ids=lambda change: json.dumps(change)[:40],
)
def test_a_manifest_that_lies(change, tmp_path, capsys):
    plant(tmp_path / "p", {"train/a/x.jpg": jpeg()})
    assert shards(["make", "folder", str(tmp_path / "p"), str(tmp_path / "set"), "--workers", "1"]) == 0
    path = tmp_path / "set" / "train.manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refusal(lambda: shards(["info", str(tmp_path / "set")]), capsys)
