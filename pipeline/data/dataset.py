"""The data of a run, for whoever trains, evaluates or plans: its splits, their fingerprint, their batches."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.labels import Answers, answers
from pipeline.data.loading.batch import TrainingBatches
from pipeline.data.loading.loader import EvaluationLoader, TrainLoader
from pipeline.data.loading.sampler import Sampling
from pipeline.data.settings import DataConfig
from pipeline.data.shards.manifest import Manifest, manifest_path
from pipeline.errors import UserError
from pipeline.files import locked
from tnt.untrusted.reading import BadFile, read_json

STREAM_WORKERS = 4


@dataclass(frozen=True)
class Generated:
    """A set that is made where it is missing: what it will be, so that a plan need not make it."""

    fingerprint: str
    samples: dict[str, int]


GENERATED = {
    "digits": Generated(
        "1520e4e61c51ce94a211d749f57e1815d9b2c4b23a9a80a60ba7a75fa15033b5", {"train": 1437, "validation": 360}
    ),
    "marks": Generated(
        "21902611dbe05a8dc2e18440a4451d013fa33b8c12137f4a988597ed692343aa", {"train": 2048, "validation": 400}
    ),
}


def to_be_made(data: DataConfig) -> Generated | None:
    """None where the data are there, or cannot be made."""
    there = manifest_path(Path(data.root), data.train).exists()
    return None if there else GENERATED.get(data.name)


def prepare(data: DataConfig) -> None:
    """Make what can be made, where it is missing; one process is enough."""
    if to_be_made(data) is None:
        return
    from pipeline.data.packing.pack import Packing, make
    from pipeline.data.packing.sources.digits import digits
    from pipeline.data.packing.sources.marks import marks

    root = Path(data.root)
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / f".{data.name}.lock", waiting=lambda: None):  # another run may be making them
        if not manifest_path(root, data.train).exists():
            make(digits() if data.name == "digits" else marks(), root, Packing(workers=1))


def open_split(data: DataConfig, split: str) -> Manifest:
    """A split's manifest, its shards staged if asked for; refused if its classes are not as many as said."""
    manifest = Manifest.read(data.root, split)
    if len(manifest.classes) != data.classes:
        raise UserError(
            f"the {split} shards at {data.root} have {len(manifest.classes)} classes, the config says "
            f"{data.classes}; set data.classes={len(manifest.classes)}"
        )
    names = zip(manifest.classes, data.class_names or manifest.classes, strict=True)
    if wrong := next((pair for pair in names if pair[0] != pair[1]), None):
        raise UserError(f"the {split} shards at {data.root} have {wrong[0]!r} where a class is {wrong[1]!r}")
    wanted = data.train_images if split == data.train else data.validation_images
    if wanted not in (0, len(manifest)):
        raise UserError(f"the {split} shards at {data.root} hold {len(manifest):,} images, not {wanted:,}")
    if data.stage:
        from pipeline.data.shards.staging import stage

        manifest = stage(manifest, data.stage)
    return manifest


def training_batches(
    data: DataConfig, sampling: Sampling, *, micro_batch: int, rank: int, world: int
) -> TrainingBatches:
    """This rank's micro-batches of the split to learn from, by the reader that the config names."""
    if data.reader == "webdataset":
        from pipeline.data.loading.stream import StreamLoader, stream_of

        return StreamLoader(
            stream_of(data.root, data.train),
            sampling,
            data.augmentation,
            rank=rank,
            world=world,
            micro_batch=micro_batch,
            # Its order of samples depends on them: not on the cores.
            workers=STREAM_WORKERS if data.loading.workers < 0 else data.loading.workers,
            timeout=data.loading.timeout,
        )
    return TrainLoader(
        open_split(data, data.train),
        sampling,
        data.augmentation,
        rank=rank,
        world=world,
        micro_batch=micro_batch,
        loading=data.loading,
        limits=data.damage,
    )


def evaluation_batches(
    data: DataConfig, *, batch: int, rank: int, world: int
) -> tuple[EvaluationLoader, Answers]:
    """This rank's batches of the split to be measured on, and which answers are right for its samples."""
    manifest = open_split(data, data.validation)
    right = answers(data, manifest)
    loader = EvaluationLoader(
        manifest, data.augmentation, batch=batch, rank=rank, world=world, loading=data.loading
    )
    return loader, right


def missing_shards(root: str, split: str) -> list[str]:
    """What is not as the split's manifest says, by the names and sizes of its files."""
    return Manifest.read(root, split).check_files()


def fingerprint(data: DataConfig) -> str:
    """SHA-256 over the fingerprints that both splits' manifests state; reads no index, so it is quick."""
    if (made := to_be_made(data)) is not None and (data.train, data.validation) == tuple(made.samples):
        return made.fingerprint
    stated = [_stated(Path(data.root), split) for split in (data.train, data.validation)]
    return hashlib.sha256("\n".join(stated).encode()).hexdigest()


def described(data: DataConfig) -> dict[str, str]:
    """The splits in a few words each, for whoever compares them with what they were."""
    words = {"root": data.root}
    for split in (data.train, data.validation):
        manifest = Manifest.read(data.root, split)
        words[split] = (
            f"{len(manifest)} samples in {len(manifest.shards)} shards, {manifest.fingerprint[:12]}"
        )
    return words


def _stated(root: Path, split: str) -> str:
    try:
        header = read_json(manifest_path(root, split), {"fingerprint": str})
        return str(header["fingerprint"])
    except (FileNotFoundError, BadFile):
        return Manifest.read(root, split).fingerprint  # says what is wrong, in the same words as training
