"""The right answers for each image of a split: its one class, or the classes that ReaL allows."""

import re
from pathlib import Path

import numpy as np

from pipeline.data.settings import DataConfig
from pipeline.data.shards.manifest import Manifest
from pipeline.errors import UserError
from tnt.untrusted.reading import read_json

REAL = "real.json"


class Answers:
    """`classes[i]` are the right outputs for sample i; an image without any is not counted."""

    def __init__(self, classes: list[tuple[int, ...]], outputs: int) -> None:
        self.classes, self.outputs = classes, outputs

    def right(self, samples: np.ndarray) -> np.ndarray:
        """bool [B, outputs]; a row is all false for padding (−1) and for an image without an answer."""
        table = np.zeros((len(samples), self.outputs), bool)
        for row, sample in enumerate(samples.tolist()):
            if sample >= 0:
                table[row, list(self.classes[sample])] = True
        return table


def answers(data: DataConfig, manifest: Manifest) -> Answers:
    labels = manifest.label.tolist()
    if data.labels == "index":
        number = {str(label): label for label in range(data.classes)}
        if set(manifest.classes) != set(number) or len(manifest.classes) != data.classes:
            raise UserError(
                f"data.labels=index needs classes named 0 to {data.classes - 1}; {manifest.root} has "
                f"{', '.join(manifest.classes[:3])}, …"
            )
        labels = [number[manifest.classes[label]] for label in labels]
    if data.labels == "real":
        return Answers(_reassessed(Path(data.root) / REAL, manifest, data.classes), data.classes)
    return Answers([(label,) for label in labels], data.classes)


def _reassessed(path: Path, manifest: Manifest, classes: int) -> list[tuple[int, ...]]:
    """ReaL's list has the order of ILSVRC's file names: its first entry is for …_00000001."""
    try:
        stored = read_json(path, [[int]])
    except FileNotFoundError:
        raise UserError(
            f"data.labels=real needs {path}: it is in github.com/google-research/reassessed-imagenet"
        ) from None
    result = []
    for key in manifest.key.tolist():
        match = re.fullmatch(rb"ILSVRC2012_val_(\d{8})", key)
        number = int(match[1]) if match else 0  # type: ignore[text-number]
        if not 1 <= number <= len(stored):
            raise UserError(f"{path} has no answer for {key.decode(errors='replace')}: it is for ILSVRC 2012")
        allowed = stored[number - 1]
        if not all(0 <= label < classes for label in allowed):
            raise UserError(f"{path}: {allowed[:10]!r} are no classes of {classes}")
        result.append(tuple(allowed))
    return result
