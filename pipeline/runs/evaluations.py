"""What evaluate.py measured of weights: `results/evaluations/<id>.json`, one small file each."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.typed import build
from pipeline.errors import UserError
from pipeline.runs import answers
from tnt.untrusted.reading import BadFile, read_json


@dataclass(frozen=True)
class Evaluation:
    """Of published weights."""

    id: str
    anchor: str  # whose weights they were said to be
    data: str  # the name of the set
    weights_sha256: str
    top1: float
    top5: float
    images: int
    images_per_second: float
    answers_sha256: str


def folder_of(records: Path | str) -> Path:
    """Beside the folder of the records."""
    return Path(records).parent / "evaluations"


def read_all(folder: Path) -> tuple[list[Evaluation], list[str]]:
    """Those of anchors, and a line for each file that cannot be read, or does not agree with itself."""
    found, problems = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            values = read_json(path, dict)
            if values.get("anchor"):
                found.append(_read(path))
        except UserError as error:
            problems.append(str(error))
    return found, problems


def _read(path: Path) -> Evaluation:
    values = read_json(path, {"data": {"name": str}, "right": str})
    names = [field.name for field in dataclasses.fields(Evaluation) if field.name in values]
    known = {name: values[name] for name in names} | {"id": path.stem, "data": values["data"]["name"]}
    found = build(Evaluation, known, str(path))
    try:
        share = 100 * int(answers.from_text(values["right"], found.images).sum()) / found.images
    except (ValueError, ZeroDivisionError) as error:
        raise BadFile(f"{path}: right cannot be read: {error}") from error
    if share != found.top1:
        raise BadFile(f"{path} was edited: its answers are right for {share} %, not {found.top1}")
    return found
