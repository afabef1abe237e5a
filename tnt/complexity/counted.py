"""What was counted of every network in the paper, kept beside the code: counting takes a minute or two.

    python -m tnt.complexity --count --json > tnt/complexity/counted.json

counts again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tnt.untrusted.reading import read_json

KEPT = Path(__file__).with_name("counted.json")
SHAPE = {"code": str, "versions": {str: str}, "tnt": [dict], "baselines": [dict]}
# Beside those of `tnt/pyramid/`: whose text decides a count.
MODULES = (
    *("config", "attention", "embed", "block", "model"),
    *("complexity/count", "complexity/paper", "complexity/sizes"),
)


def kept() -> dict[str, Any]:
    """What `--json` printed."""
    found: dict[str, Any] = read_json(KEPT, SHAPE)
    return found


def code() -> str:
    """The SHA-256 of the code that decides a count."""
    folder = KEPT.parent.parent
    paths = [folder / f"{name}.py" for name in MODULES] + sorted((folder / "pyramid").glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def of_timm(name: str, resolution: int) -> dict[str, Any] | None:
    """A network as timm makes it, with its 1,000 classes: its `params` and its multiply-adds, `counted`."""
    for each in kept()["baselines"]:
        if (each["baseline"]["timm"], each["baseline"]["resolution"]) == (name, resolution):
            return dict(each)
    return None
