"""The splits that a config names: their manifests, their fingerprint, and those that are made on demand."""

import hashlib
import json
from pathlib import Path

from pipeline.config.run import RunConfig
from pipeline.data.packing.sources.source import Source
from pipeline.data.settings import DataConfig
from pipeline.data.shards.manifest import Manifest, manifest_path
from pipeline.errors import UserError
from pipeline.files import locked

GENERATED = ("digits", "marks")


def prepare(config: RunConfig) -> None:
    """Make what can be made, where it is missing; one process is enough."""
    data = config.data
    if data.name not in GENERATED or manifest_path(Path(data.root), data.train).exists():
        return
    from pipeline.data.packing.pack import Packing, make

    root = Path(data.root)
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / f".{data.name}.lock", waiting=lambda: None):  # another run may be making them
        if not manifest_path(root, data.train).exists():
            make(_source(data.name), root, Packing(workers=1))


def _source(name: str) -> Source:
    if name == "digits":
        from pipeline.data.packing.sources.digits import digits

        return digits()
    from pipeline.data.packing.sources.marks import marks

    return marks()


def open_split(data: DataConfig, split: str) -> Manifest:
    """A split's manifest, its shards staged if asked for; refused if its classes are not as many as said."""
    manifest = Manifest.read(data.root, split)
    if len(manifest.classes) != data.classes:
        raise UserError(
            f"the {split} shards at {data.root} have {len(manifest.classes)} classes, the config says "
            f"{data.classes}; set data.classes={len(manifest.classes)}"
        )
    if data.stage:
        from pipeline.data.shards.staging import stage

        manifest = stage(manifest, data.stage)
    return manifest


def fingerprint(data: DataConfig) -> str:
    """SHA-256 over the fingerprints that both splits' manifests state; reads no index, so it is quick."""
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
        header = json.loads(manifest_path(root, split).read_bytes())
        return str(header["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return Manifest.read(root, split).fingerprint  # says what is wrong, in the same words as training
