"""Tars, manifests and folders of images that lie, or that never end."""

import json
import os
import tarfile

import pytest

from pipeline.data.packing.sources.folder import folder
from pipeline.shards import main as shards
from tests.faults.limits import refusal
from tests.pipeline.data.packing.sources.archived import tar_bytes
from tests.pipeline.pictures import jpeg, plant

DEEP = b'{"label":' * 900 + b"1" + b"}" * 900

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
