"""What replays of parts of a finished run came to: `results/audits/<id>.json`, one statement for each.

The file has a hash of itself, and a statement the hash of the record that it is about: an edited file is
refused, and a statement about a record that was replaced does not count for the new one.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.typed import build, listed
from pipeline.errors import UserError
from pipeline.files import locked, publish_bytes, sha256
from pipeline.runs.records import digest, record_path
from tnt.untrusted.reading import BadFile, read_json

SHAPE = {"run": str, "audits": [dict], "sha256": str}


@dataclass(frozen=True)
class Audit:
    record_sha256: str  # of the record's file
    after: int  # the replay began with the checkpoint of this step
    up_to: int  # and ended with this one
    compared: int  # steps of which metrics.jsonl holds a line
    same_layout: bool  # as the run's: they agree to the last digit; else within rounding
    loss_gap: float  # the largest that was met, relative
    grad_norm_gap: float
    fault: str  # the first that was found; "": all agrees
    by: str  # the user's name
    host: str
    time: str  # UTC
    commit: str
    dirty: bool

    def __str__(self) -> str:
        kind = "to the last digit" if self.same_layout else "within rounding, in another layout"
        came = f"does not agree: {self.fault}" if self.fault else f"{self.compared} agree {kind}"
        return f"steps {self.after + 1:,} to {self.up_to:,}, {came} ({self.by}, {self.host}, {self.time})"


def path_of(records: Path | str, id: str) -> Path:
    """Beside the folder of the records."""
    return Path(records).parent / "audits" / f"{id}.json"


def read(path: Path) -> list[Audit]:
    """Oldest first; none where there is no file."""
    if not path.exists():
        return []
    values = read_json(path, SHAPE)
    if values.pop("sha256") != digest(values) or values["run"] != path.stem:
        raise BadFile(f"{path} was edited or damaged: it does not match its own sha256; audit the run again")
    try:
        return [build(Audit, each, "") for each in values["audits"]]
    except UserError as error:
        raise BadFile(f"{path}: {error}") from error


def add(path: Path, audit: Audit) -> None:
    """To those that are there; two at one moment come one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / ".lock", waiting=lambda: None):
        publish(path, [*read(path), audit])


def sound(records: Path | str, id: str) -> bool:
    """Whether a record, as it is, was audited, and nothing was found."""
    told = [
        one for one in read(path_of(records, id)) if one.record_sha256 == sha256(record_path(records, id))
    ]
    return bool(told) and not any(one.fault for one in told)


def publish(path: Path, audits: Sequence[Audit]) -> None:
    values: dict[str, Any] = {"run": path.stem, "audits": [listed(dataclasses.asdict(one)) for one in audits]}
    values["sha256"] = digest(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    publish_bytes(path, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())
