"""Which run a config is: the same science and the same data are the same run, on every machine and for ever.

An id is made of the settings that differ from their birth values (birth.py). To add a setting, add its birth
value; to rename one, name the new and the old in RENAMED; a setting that goes stays in birth.json. Where the
code comes to give other numbers for the same settings, its part gets the next revision in REVISIONS.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.config.birth import BIRTH, RENAMED, canonical, filled, of_others
from pipeline.config.run import SCIENCE, RunConfig, plain
from pipeline.config.science import OwnConfig
from pipeline.config.typed import flattened, nested
from pipeline.data.augmentation.settings import Augmentation
from pipeline.errors import UserError
from pipeline.files import sha256
from tnt.own.files import is_own
from tnt.untrusted.reading import memory

RUN_ID = re.compile(r"[0-9a-f]{12}")
# Of the sections SCIENCE, what cannot change the numbers. The shards' content is the fingerprint's part.
NOT_SCIENCE = ("data.root", "data.stage", "data.loading", "data.damage", "recipe.evaluate_every",
               "data.class_names", "data.train_images", "data.validation_images")  # fmt: skip
OF_LANES = ("data.lanes", "data.window")  # nothing reads them in another order
OF_OTHERS = ("model.name",)  # the settings of a network of ours say all of it
# Parts of the code that came to give other numbers: the revision, and which runs it concerns.
REVISIONS: dict[str, tuple[int, Callable[[RunConfig], bool]]] = {
    # 2: masks by the views' positions, not by a generator that depends on the micro-batch
    "drop_path": (2, lambda config: config.recipe.drop_path > 0),
    # 2: each lambda is that of every fourth view of 512, not of 128 in a row; cutmix's box as timm cuts it
    "mixing": (2, lambda config: config.data.augmentation.mixes),
    # 2: interpolation=bilinear holds for its operations too
    "randaugment": (2, lambda config: _bilinear_policy(config.data.augmentation)),
}


def science(config: RunConfig) -> dict[str, Any]:
    """What decides the numbers. Weights to start from are named by a run's id or by their content."""
    values = _settings(config)
    for name, (revision, concerns) in REVISIONS.items():
        values[f"revisions.{name}"] = revision if concerns(config) else 1
    if isinstance(config.model.network, OwnConfig):
        values["model.source"] = config.model.network.source
    for name in ("recipe.init", "recipe.teacher"):
        values[name] = _origin(name, values[name])
    return nested(_deciding(values))


def completed(science: Mapping[str, Any]) -> dict[str, Any]:
    """The science that an earlier code wrote, in the words of this one; refused where it makes no sense."""
    values = filled(science, _names())
    theirs = of_others(str(values.get("model.name", "")))
    for name, value in values.items():
        if theirs and name.startswith("model."):
            continue
        born = BIRTH.get(RENAMED.get(name, name))
        if born is not None and _kind(value) != _kind(born):
            raise UserError(f"science.{name} is {value!r}, nothing like {born!r}")
    return nested(_deciding(values))


def run_id(config: RunConfig, fingerprint: str) -> str:
    """12 hex digits for the science and the data's fingerprint (`pipeline.data.dataset.fingerprint`)."""
    return id_of(science(config), fingerprint)


def id_of(science: Mapping[str, Any], fingerprint: str) -> str:
    content = {"science": _differing(science), "data": fingerprint}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def is_run_id(text: str) -> bool:
    return RUN_ID.fullmatch(text) is not None


@functools.cache
def _names() -> tuple[str, ...]:
    return (*_settings(RunConfig()), *(f"revisions.{name}" for name in REVISIONS))


def _settings(config: RunConfig) -> dict[str, Any]:
    values = plain(config)
    return dict(flattened({section: values[section] for section in SCIENCE}))


def _deciding(values: Mapping[str, Any]) -> dict[str, Any]:
    without: tuple[str, ...] = NOT_SCIENCE
    without += () if values.get("data.order") == "lane" else OF_LANES
    without += () if of_others(str(values.get("model.name"))) else OF_OTHERS
    return {
        name: value
        for name, value in values.items()
        if not any(name == other or name.startswith(f"{other}.") for other in without)
    }


def _differing(science: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from birth, by the names at birth."""
    found = {}
    own = is_own(str(science["model"].get("name", "")))
    for name, value in flattened(science):
        born = RENAMED.get(name, name)
        if own and name.startswith("model."):  # born with their file, whose hash is among them
            found[name] = canonical(value)
            continue
        if born not in BIRTH:
            raise UserError(f"setting {name} is unknown: pipeline/config/birth.json has no value for it")
        if canonical(value) != canonical(BIRTH[born]):
            found[born] = canonical(value)
    return found


def _kind(value: Any) -> Any:
    """What values of a setting have in common; `word_dim`, which may be null, was born so."""
    if isinstance(value, list | tuple):
        return [_kind(item) for item in value]
    return float if type(value) is int else type(value)


def _bilinear_policy(augmentation: Augmentation) -> bool:
    return augmentation.interpolation == "bilinear" and augmentation.randaugment != ""


def _origin(name: str, init: str) -> str:
    if not init or is_run_id(init):
        return init
    try:
        if (size := Path(init).stat().st_size) > memory():  # before an hour goes into its hash
            raise UserError(f"{name}={init} has {size:,} bytes, more than this machine's memory")
        return "sha256:" + sha256(Path(init))
    except OSError as error:
        raise UserError(
            f"{name}={init!r} is neither a run's id (12 hex digits) nor a file that can be read "
            f"({error.strerror})"
        ) from None
