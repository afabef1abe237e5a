"""Every kind of file at every place where a file of others is read."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import tnt
from pipeline.config import run as configs
from pipeline.config.overrides import compose
from pipeline.data.labels import answers
from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.cifar import cifar
from pipeline.data.packing.sources.folder import folder
from pipeline.data.packing.sources.imagenet import META, TRUTH, _validation_labels
from pipeline.data.packing.sources.oxford import flowers, pets
from pipeline.data.shards.manifest import Manifest
from pipeline.data.shards.reader import ShardFiles
from pipeline.errors import UserError
from pipeline.runs import attempts, checkpoints, log, records
from pipeline.shards import main as shards
from tests.faults.kinds import KINDS
from tests.faults.limits import bounded, refusal, tnt_refusal
from tnt.feature_store import FeatureStore
from tnt.images import ImageError, Item, open_image
from tnt.model_card import read_record
from tnt.predict import class_names
from tnt.shard_images import find_shards, shard_items

Planted = Callable[[str], Path]  # puts the file there


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("packed")
    for split in ("train", "validation"):
        for label in ("a", "b"):
            place = root / "pictures" / split / label
            place.mkdir(parents=True)
            Image.new("RGB", (8, 8), (label == "a" and "red") or "blue").save(place / f"{split}-{label}.png")
    make(folder(root / "pictures"), root / "set", Packing(workers=1))
    return root


# Places where a command refuses: (name of the file, what reads it)
def _features(path: Path) -> None:
    with FeatureStore(path.parents[1] / "out.npz", {}, {"final.class": (3,)}, "float32"):
        pass


def _reader(path: Path) -> None:
    ShardFiles(path.parent, [path.name], pauses=()).read(0, 0, 10, 0)


def _one_shard(path: Path) -> None:
    for shard in find_shards([path]):
        list(shard_items(shard))


class _FiveClasses:
    class config:
        classes = 5


BY_TNT: dict[str, Callable[[Path], object]] = {
    "w.safetensors": tnt.weights.read,
    "w.pth": tnt.weights.read,
    "w.pth.tar": tnt.weights.read,
    "names.txt": lambda path: class_names(_FiveClasses, path),
    "record.json": read_record,
    "s.tar": _one_shard,
    "out.npz.parts/index.jsonl": _features,
    "out.npz.parts/request.json": _features,
}
BY_PIPELINE: dict[str, Callable[[Path], object]] = {
    "shard.tar": _reader,
    "set/a-train-00.tar": lambda path: shards(["index", str(path.parent), "--workers", "1"]),
    "config.yaml": configs.read,
    "0123456789ab.json": records.read,
    "cifar-10-python.tar.gz": lambda path: cifar("cifar10", path),
    "flowers/imagelabels.mat": lambda path: flowers(path.parent),
    "pets/annotations.tar.gz": lambda path: pets(path.parent),
    f"kit/{META}": lambda path: _validation_labels(path.parents[1], ["a"], 1),
    f"kit/{TRUTH}": lambda path: _validation_labels(path.parents[1], ["a"], 1),
}
BESIDE = {  # what must be there for the file to be read
    "flowers/imagelabels.mat": ("flowers/102flowers.tgz", "flowers/setid.mat"),
    "pets/annotations.tar.gz": ("pets/images.tar.gz",),
    f"kit/{META}": (f"kit/{TRUTH}",),
    f"kit/{TRUTH}": (f"kit/{META}",),
}


HARMLESS = {
    "s.tar": ("folder", "zeros", "sparse"),  # a folder of no shards, shards of no images
    "out.npz.parts/index.jsonl": ("dangling",),  # it is made
    "out.npz.parts/request.json": ("dangling",),
    "classes.txt": ("empty", "escapes"),  # no names, and two of them
    "_info.json": ("dangling",),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in (*BY_TNT, *BY_PIPELINE)
        for kind in KINDS
        if kind not in HARMLESS.get(name, ())
    ],
)
def test_it_is_refused_in_one_line(name, kind, tmp_path, capsys):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in BESIDE.get(name, ()):
        (tmp_path / other).touch()
    KINDS[kind](path)
    if name.endswith(".jsonl") and kind not in ("sparse", "endless") and path.is_file():
        path.write_bytes(path.read_bytes() + b"\n")  # a line without an end counts as cut off
    if name in BY_TNT:
        tnt_refusal(lambda: BY_TNT[name](path), capsys)
    else:
        refusal(lambda: BY_PIPELINE[name](path), capsys)


PARTS = ("train.manifest.json", "train.index.npz", "classes.txt", "_info.json", "real.json")


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in PARTS for kind in KINDS if kind not in HARMLESS.get(name, ())],
)
def test_a_part_of_a_set_is_refused_in_one_line(name, kind, packed, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(packed / "set", root)
    (root / name).unlink(missing_ok=True)
    KINDS[kind](root / name)

    def read() -> None:
        if name == "real.json":
            answers(
                compose([f"data.root={root}", "data.classes=2", "data.labels=real"]).data,
                Manifest.read(root, "train"),
            )
        elif name in ("classes.txt", "_info.json"):
            shards(["index", str(root), "--workers", "1"])
        else:
            Manifest.read(root, "train")

    refusal(read, capsys)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_named_and_left_out(kind, tmp_path):
    KINDS[kind](tmp_path / "x.png")
    with bounded(), pytest.raises(ImageError, match=r"x\.png"):
        open_image(Item("x.png", tmp_path / "x.png"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_neighbours_file_takes_nothing_away(kind, tmp_path):
    """Among records, runs, checkpoints, rates and launches one bad file is named or passed over."""
    run, other = tmp_path / "runs" / "0123456789ab", tmp_path / "runs" / "ba9876543210"
    step = other / "checkpoints" / "step-00000004"
    for place in (run, step):
        place.mkdir(parents=True)
    for path in (other / "run.json", step / "MANIFEST.json", tmp_path / "0123456789ab.json"):
        KINDS[kind](path)
    with bounded():
        attempts.register(run, "science", {"root": "data"})
        assert checkpoints.problem_with(step)
        found, problems = records.read_all(tmp_path)
    assert not found
    assert len(problems) == 1
    assert "0123456789ab.json" in problems[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["metrics.jsonl", "timing.jsonl", "attempts.jsonl", "lease"])
def test_a_runs_own_file_is_refused_or_has_nothing_to_say(name, kind, tmp_path):
    KINDS[kind](tmp_path / name)
    with bounded():
        try:
            assert not log.metrics(tmp_path)
            assert log.spent(tmp_path).attempts == 0
            assert not attempts.attempts(tmp_path)
            assert attempts.holder(tmp_path) is None
        except (UserError, OSError) as error:
            said = str(error)
        else:
            said = name
    assert name in said
