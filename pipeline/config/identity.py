"""Which run a config is: the same science and the same data are the same run, on every machine."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pipeline.config.run import RunConfig, plain
from pipeline.errors import UserError
from pipeline.files import sha256

RUN_ID = re.compile(r"[0-9a-f]{12}")
# Of the data section: where the shards lie and how they are read. Their content is the fingerprint's part.
NOT_SCIENCE = ("root", "stage", "loading", "damage")


def science(config: RunConfig) -> dict[str, Any]:
    """What decides the numbers. Weights to start from are named by a run's id or by their content."""
    values = plain(config)
    data = {name: value for name, value in values["data"].items() if name not in NOT_SCIENCE}
    recipe = values["recipe"] | {"init": _origin(config.recipe.init)}
    chosen = {name: values[name] for name in ("model", "seed", "scale", "precision")}
    return chosen | {"data": data, "recipe": recipe}


def run_id(config: RunConfig, fingerprint: str) -> str:
    """12 hex digits for the science and the data's fingerprint (`pipeline.data.dataset.fingerprint`)."""
    return id_of(science(config), fingerprint)


def id_of(science: dict[str, Any], fingerprint: str) -> str:
    content = {"science": science, "data": fingerprint}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_run_id(text: str) -> bool:
    return RUN_ID.fullmatch(text) is not None


def _origin(init: str) -> str:
    if not init or is_run_id(init):
        return init
    try:
        return "sha256:" + sha256(Path(init))
    except OSError as error:
        raise UserError(
            f"recipe.init={init!r} is neither a run's id (12 hex digits) nor a file that can be read "
            f"({error.strerror})"
        ) from None
