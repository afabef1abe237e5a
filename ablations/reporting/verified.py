"""Whether the weights that lie here are those of which a record tells."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.runs.records import Record

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Verified:
    same: tuple[str, ...]  # ids
    absent: tuple[str, ...]
    wrong: tuple[str, ...]  # a line each


def verified(found: Iterable[Record], runs: Path) -> Verified:
    same, absent, wrong = [], [], []
    for record in found:
        path = runs / record.id / WEIGHTS
        try:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            absent.append(record.id)
        except OSError as error:
            wrong.append(f"{path} cannot be read: {error.strerror}")
        else:
            if digest == record.weights_sha256:
                same.append(record.id)
            else:
                wrong.append(
                    f"{path} is not what the record of {record.id} tells of: its SHA-256 is {digest[:12]}…, "
                    f"not {record.weights_sha256[:12]}…"
                )
    return Verified(tuple(same), tuple(absent), tuple(wrong))
