"""Hydra: the files under conf/ composed to one config, and its grammar of values."""

import hashlib
import json
import os
import typing
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import PACKAGE, publish_bytes
from tnt.untrusted.reading import BadFile, read_json

LONGEST, SHOWN = 1000, 200  # characters of a value, and of one in a message
FOLDER = PACKAGE / "conf"


def grouped(
    groups: tuple[str, ...], defaults: dict[str, Any], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The composition of the groups' choices, with `options` beside those that are files.

    It takes a tenth of a second, so it is kept for as long as nothing that it follows from changes.
    """
    files = sorted(FOLDER.rglob("*.yaml"))
    texts = [part for path in files for part in (path.relative_to(FOLDER).as_posix(), path.read_text())]
    content = [version("hydra-core"), *groups, json.dumps([defaults, options]), *texts]
    name = hashlib.sha256("\0".join(content).encode()).hexdigest()
    return kept(f"config-{name[:32]}", lambda: _by_hydra(groups, defaults, options))


def _by_hydra(
    groups: tuple[str, ...], defaults: dict[str, Any], options: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    store = ConfigStore.instance()
    store.store("defaults", defaults)
    for group, choices in options.items():
        for name, values in choices.items():
            store.store(name, values, group=group)
    try:
        with initialize_config_dir(str(FOLDER), version_base="1.3"):
            config = compose("config", overrides=list(groups))
        return typing.cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(f"config: {str(error.__cause__ or error).splitlines()[0]}") from error


def resolved(values: dict[str, Any]) -> dict[str, Any]:
    """With the values that others refer to in their places."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return typing.cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.create(values), resolve=True))
    except OmegaConfBaseException as error:
        raise UserError(f"config: {str(error).splitlines()[0]}") from error


def parsed(key: str, raw: str) -> Any:
    """Hydra's grammar of values: 1e-3, true, null, [a,b]."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if len(raw) > LONGEST:
        raise UserError(f"{key}={raw[:SHOWN]}… has {len(raw):,} characters; at most {LONGEST:,} are read")
    try:
        override = OverridesParser.create().parse_override(f"{key}={raw}")
    except (HydraException, ValueError, RecursionError) as error:  # the last two of huge numbers and lists
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot read {key}={raw[:SHOWN]}: {reason[:SHOWN]}") from error
    if override.is_sweep_override():
        raise UserError(f"{key}={raw} is no single value; write {key}=value")
    return override.value()


def refuse_resolvers(node: Any, path: str) -> None:
    """`${oc.env:…}` and its like give another value on another machine, and may copy a secret into a run."""
    if isinstance(node, dict):
        for name, value in node.items():
            refuse_resolvers(value, f"{path}.{name}" if path else str(name))
    elif isinstance(node, list):
        for value in node:
            refuse_resolvers(value, path)
    elif isinstance(node, str) and "${" in node and ":" in node.split("${", 1)[1]:
        raise UserError(f"{path}={node!r} asks for a resolver; write the value itself")


def folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tnt-lab"


def kept(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The value of that name, kept or made now; the name must be a hash of all that it follows from."""
    path = folder() / f"{name}.json"
    try:
        value: dict[str, Any] = read_json(path, dict)
        return value
    except (FileNotFoundError, BadFile):
        value = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        publish_bytes(path, json.dumps(value).encode())
    except OSError:
        pass  # a home without room or leave to write is no reason to stop
    return value
