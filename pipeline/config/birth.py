"""Birth values: for each setting that decides numbers, what the code did before the setting existed.

They never change (birth.json): a new setting or default changes no id (identity.py), and this code can read
what an earlier one wrote.
"""

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pipeline.config.typed import flattened
from tnt.config import PYRAMID, PyramidConfig

BIRTH: dict[str, Any] = json.loads(Path(__file__).with_name("birth.json").read_text())
RENAMED: dict[str, str] = {}  # a setting's name today → its name at birth


def filled(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """What an earlier code wrote, flattened, in the words of this one, which has the settings `names`.

    Those of the network are a TNT's: a pyramid has its own, and of one of timm's all were written.
    """
    today = {born: name for name, born in RENAMED.items()}
    held = {today.get(name, name): value for name, value in flattened(values)}
    theirs, pyramid = of_others(str(held.get("model.name", ""))), held.get("model.form") == PYRAMID
    if theirs or pyramid:
        own = [f"model.{field.name}" for field in dataclasses.fields(PyramidConfig)] if pyramid else []
        names = [*(name for name in names if not name.startswith("model.")), *own]
    lacking = {name: BIRTH[born] for name in names if (born := RENAMED.get(name, name)) in BIRTH}
    gone = {
        name
        for name, value in held.items()
        if name not in names and name in BIRTH and canonical(value) == canonical(BIRTH[name])
        if not (theirs and name.startswith("model."))
    }
    return {name: value for name, value in (lacking | held).items() if name not in gone}


def of_others(name: str) -> bool:
    """Whether a network is timm's or the user's own: its settings were not born here."""
    return ":" in name


def canonical(value: Any) -> Any:
    """One spelling of equal values: a number that is whole is an int, a tuple is a list."""
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
