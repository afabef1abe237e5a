"""What is fuzzed: readers of what strangers wrote, each with what must hold of an input that it takes.

    python -m tests.faults.fuzzed                          the committed corpus, once
    python -m tests.faults.by_atheris tar --seconds 60     what atheris makes of it, led by coverage

An input that breaks the rule belongs into the corpus, with the correction.
"""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import xxhash

import tnt
from pipeline.config import composition
from pipeline.config import run as configs
from pipeline.config.identity import is_run_id
from pipeline.config.overrides import compose, from_command_line, top_level
from pipeline.config.run import RunConfig
from pipeline.data.images.decode import ImageKind, StoredImage, decode, inspect_image
from pipeline.data.packing.sources.cifar import unpickle
from pipeline.data.packing.sources.matlab import vector
from pipeline.data.shards.manifest import Manifest, index_path, manifest_path
from pipeline.data.shards.tar import ArchiveWriter, scan_file, tar_samples
from pipeline.errors import UserError
from pipeline.runs import records
from tests.faults.kinds import fifo, sparse
from tnt import weights
from tnt.weights.models import WRITABLE, Weights, open_model
from tnt.weights.models import main as translate

CORPUS = Path(__file__).with_name("corpus")
NAME = "input"  # of the file, which its refusal must hold


def tar(content: bytes, folder: Path) -> None:
    """Its members, written again, are read again; its samples have an image and a label, or are refused."""
    path, again = folder / f"{NAME}.tar", folder / "again.tar"
    path.write_bytes(content)
    members = list(scan_file(path, old=True))
    with contextlib.suppress(UserError):  # a name may be too long to be written
        with again.open("wb") as file:
            writer = ArchiveWriter(file)
            for member in members:
                writer.add(member.name, content[member.offset : member.offset + member.size])
            writer.close()
        assert [(m.name, m.size) for m in scan_file(again)] == [(m.name, m.size) for m in members]
    for sample in tar_samples(members, path.name):
        sample.image(path.name)
        sample.label(lambda at, count: content[at : at + count], path.name)
    list(scan_file(path))


def image(content: bytes, folder: Path) -> None:
    """What is inspected has those pixels."""
    for kind in (ImageKind.JPEG, ImageKind.OTHER):
        with contextlib.suppress(UserError):
            decode(StoredImage(content, kind, 8, 8))
    found = inspect_image(content)
    assert decode(StoredImage(content, found.kind, found.width, found.height)).size
    with contextlib.suppress(UserError):
        decode(StoredImage(content, found.kind, found.width + 1, found.height))
        raise AssertionError("another size than recorded")


def manifest(content: bytes, folder: Path) -> None:
    """The header, beside an index that is sound; what is read is written as it was."""
    index_path(folder, "train").write_bytes((CORPUS / "index" / "sound").read_bytes())
    manifest_path(folder, "train").write_bytes(content)
    _read_manifest(folder)


def index(content: bytes, folder: Path) -> None:
    """The index, beside a header with its hash."""
    header = json.loads((CORPUS / "manifest" / "sound").read_bytes())
    header["index"] = xxhash.xxh3_128_hexdigest(content)
    index_path(folder, "train").write_bytes(content)
    manifest_path(folder, "train").write_text(json.dumps(header))
    _read_manifest(folder)


def _read_manifest(folder: Path) -> None:
    (read,) = Manifest.read_all(folder)
    read.write()
    assert Manifest.read(folder, "train").fingerprint == read.fingerprint
    assert len(read.check_files()) == len(read.shards)  # none is there
    for shard in range(len(read.shards)):
        read.path(shard).touch()
    assert len(read.check_files()) <= len(read.shards)  # all are there, and empty
    for sample in range(len(read)):
        assert read.name(sample)
        assert not read.is_sound(sample, b"")


def weight_file(content: bytes, folder: Path) -> None:
    """What is read is a network; translated into each format and read again it has the same weights."""
    path = folder / f"{NAME}.{'pth' if content[:1] in (b'P', bytes([128])) else 'safetensors'}"
    path.write_bytes(content)
    read = weights.read(path)
    model, _ = open_model(path, image_size=2 * read.config.image_size, classes=3)
    weights.save(model, folder / "again.pth")
    assert weights.load(model, folder / "again.pth").config.classes == 3
    other = weights.network(read.config.replace(mlp_ratio=read.config.mlp_ratio + 1))
    for wrong in (
        lambda: weights.load(other, path),
        lambda: weights.save(model, path, "none"),
        lambda: tnt.create_model("tnt_ti", path, depth=read.config.depth + 1),
    ):
        with contextlib.suppress(ValueError):
            wrong()
            raise AssertionError("another network, or format")
    for form in WRITABLE:
        again = folder / f"again-{form}.safetensors"
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = translate([str(path), str(again), "--to", form])
        assert status == 0 or "has no " in said.getvalue()  # place for this, or network of this family
        if status == 0:
            _same(read, weights.read(again))


def _same(one: Weights, other: Weights) -> None:
    """But for positions, which some formats hold as zeros."""
    for name, tensor in other.state.items():
        held = one.state[name] if name in one.state else torch.zeros_like(tensor)
        assert torch.equal(held, tensor) or held.isnan().any()


def record(content: bytes, folder: Path) -> None:
    """As it is, and with the hash of what it says; what is read is published and read again."""
    for told in (content, _signed(content)):
        id = _id_of(told)
        path = folder / f"{id}.json"
        (folder / id).mkdir(exist_ok=True)
        path.write_bytes(told)
        with contextlib.suppress(UserError):
            found = records.read(path)
            again = records.publish(found, folder / "again")
            assert records.read(again) == found
            assert records.exists(records.folder_of(found.id, [folder / "again"]), found.id)
        with contextlib.suppress(UserError), contextlib.redirect_stdout(io.StringIO()):
            records.main(["migrate", str(folder), "--runs", str(folder)])
        read, problems = records.read_all(folder)
        assert len(read) + len(problems) == len(list(folder.glob("*.json")))


def _signed(content: bytes) -> bytes:
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(content)
        if isinstance(values, dict):
            values.pop("sha256", None)
            return json.dumps(values | {"sha256": records.digest(values)}).encode()
    return content


def _id_of(content: bytes) -> str:
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(content)
        if isinstance(values, dict) and isinstance(values.get("id"), str) and is_run_id(values["id"]):
            return values["id"]
    return NAME


def overrides(content: bytes, folder: Path) -> None:
    """Words, a line each: a config, printed too; the printed one is read as the same."""
    words = content.decode(errors="surrogateescape").splitlines()
    assert "seed" in top_level()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            found = from_command_line(words, "")
        except SystemExit:  # after --help
            return
    assert isinstance(found, RunConfig) or said.getvalue()
    if isinstance(found, RunConfig) and not any(word.startswith("-") for word in words):
        assert compose(words) == found
        configs.write(found, folder / "config.yaml")
        assert configs.read(folder / "config.yaml") == found


def kept(content: bytes, folder: Path) -> None:
    """What was kept of a composition is used, or made anew."""
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(folder)}):
        composition.folder().mkdir()
        (composition.folder() / "kept.json").write_bytes(content)
        assert isinstance(composition.kept("kept", dict), dict)
        assert isinstance(composition.kept("kept", dict), dict)


def config(content: bytes, folder: Path) -> None:
    (folder / f"{NAME}.yaml").write_bytes(content)
    assert isinstance(configs.read(folder / f"{NAME}.yaml"), RunConfig)


READERS: dict[str, Callable[[bytes, Path], object]] = {
    "tar": tar,
    "image": image,
    "manifest": manifest,
    "index": index,
    "weights": weight_file,
    "record": record,
    "overrides": overrides,
    "config": config,
    "kept": kept,
    "matlab": lambda content, folder: vector(content, "labels", NAME),
    "pickle": lambda content, folder: unpickle(content, NAME),
}


def ask(name: str, content: bytes) -> None:
    """Whatever it says of the input is in our words."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            READERS[name](content, Path(folder))
        except UserError:
            pass
        except ValueError as error:
            # tnt raises plain ValueErrors of its own, with the file's name; others come from elsewhere.
            if NAME not in str(error):
                raise


def inputs(name: str) -> list[Path]:
    return sorted((CORPUS / name).iterdir())


def no_file(folder: Path) -> None:
    """What stands where a file is expected, or stands not."""
    at = folder / NAME
    for plant in (lambda: None, lambda: fifo(at), lambda: sparse(at), at.mkdir):
        plant()
        for read in (
            lambda: list(scan_file(at)),
            lambda: weights.read(at),
            lambda: weights.read(at / "model.safetensors"),
            lambda: records.read(at),
            lambda: configs.read(at),
            lambda: Manifest.read_all(at),
            lambda: Manifest.read(at, "train"),
        ):
            with contextlib.suppress(ValueError, OSError):
                read()
                raise AssertionError(f"{NAME} was read")
        with contextlib.suppress(UserError):  # an empty folder is one
            records.main(["migrate", str(at)])
        if at.is_file() or at.is_fifo():
            at.unlink()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        no_file(Path(folder))
    for name in READERS:
        for path in inputs(name):
            ask(name, path.read_bytes())


if __name__ == "__main__":
    main()
