"""A command line's groups and overrides `a.b=c`, sorted out, checked by name and composed to a config.

    python pipeline/train.py model=tnt_s recipe.lr=5e-4 --cfg job --resolve

prints what would run. Nothing here needs torch.
"""

import argparse
import dataclasses
import functools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipeline.config import composition
from pipeline.config.run import SHARED, RunConfig, from_plain, plain, read, read_plain, yaml_text
from pipeline.config.science import TIMM, TimmConfig, kind_of
from pipeline.config.typed import flattened, nested
from pipeline.errors import UserError, unknown_name
from tnt.config import NETWORKS, PYRAMIDS, TNTConfig
from tnt.own.files import is_own

DATA_FILE = (".yaml", ".yml")  # data=<file>: a set of one's own
GROUPS = ("model", "data", "recipe", "cluster", "scale")
REFERRING = {name: f"${{{source}}}" for name, source in SHARED.items()}


def compose(overrides: Sequence[str]) -> RunConfig:
    """The config that a command line asks for."""
    from_files = _own_network(overrides) or any(
        text.startswith("data=") and text.endswith(DATA_FILE) for text in overrides
    )
    compose = _composed.__wrapped__ if from_files else _composed  # files may change
    return compose(tuple(overrides))


@functools.cache  # tables share cells
def _composed(overrides: tuple[str, ...]) -> RunConfig:
    return from_plain(_compose(overrides, resolve=True))


def _own_network(overrides: Sequence[str]) -> str:
    """The name of a network of one's own, where one is asked for."""
    names = [text.removeprefix("model=") for text in overrides if text.startswith("model=")]
    return names[-1] if names and is_own(names[-1]) else ""


class _Arguments(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def from_command_line(argv: Sequence[str], description: str) -> RunConfig | None:
    """The config asked for; None where it was only to be printed, which has been done."""
    parser = _Arguments(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=groups_help()
    )
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="a group's choice or a single value")
    parser.add_argument(
        "--config", metavar="FILE", help="a whole config, as launch.py or an earlier run wrote it"
    )
    parser.add_argument("--cfg", choices=("job",), help="print the config and do nothing")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: what refers to other values too")
    options = parser.parse_intermixed_args(list(argv))
    if options.config and options.overrides:
        raise UserError(f"--config says every value; {options.overrides[0]!r} cannot change it")
    config = read(Path(options.config)) if options.config else compose(options.overrides)
    if options.cfg is None:
        return config
    unresolved = not options.resolve and not options.config
    print(yaml_text(_compose(options.overrides, resolve=False) if unresolved else plain(config)), end="")
    return None


def choices(group: str) -> list[str]:
    """What may stand behind `group=`."""
    names = sorted(path.stem for path in (composition.FOLDER / group).glob("*.yaml"))
    return [*NETWORKS, f"{TIMM}<name>", "<module>:<attribute>"] if group == "model" else names


def top_level() -> list[str]:
    """What may stand before `=` without a dot."""
    sections = {field.name for field in dataclasses.fields(RunConfig)} - {"about"}
    return [*GROUPS, *sorted(sections - set(GROUPS))]


def groups_help() -> str:
    groups = "\n".join(f"  {group}={'|'.join(choices(group))}" for group in GROUPS)
    return f"groups:\n{groups}\n\n--cfg job --resolve shows every single value, e.g. recipe.lr=5e-4"


def _compose(overrides: Sequence[str], resolve: bool) -> dict[str, Any]:
    groups, singles = _sorted_out(overrides)
    values = _grouped(tuple(groups))
    if name := _own_network(overrides):
        values = values | {"model": _network(name)}
    values = nested(dict(flattened(values)) | dict(singles))
    composition.refuse_resolvers(values, "")
    return composition.resolved(values) if resolve else values


@functools.cache
def _grouped(groups: tuple[str, ...]) -> dict[str, Any]:
    networks = {name: _network(name) for name in (*NETWORKS, "timm")}
    sizes = {name: {"image_size": pyramid.image_size} for name, pyramid in PYRAMIDS.items()}
    return composition.grouped(groups, _defaults(), {"model": networks, "model_data": sizes})


def _defaults() -> dict[str, Any]:
    values = plain(RunConfig())
    del values["model"]  # its keys depend on the choice
    values["data"]["augmentation"]["image_size"] = REFERRING["image_size"]
    return values


def _network(name: str) -> dict[str, Any]:
    """A variant's fields as a group's choice; the word's width follows the patch's unless it is given."""
    if is_own(name):
        fields = {each.name: each.default for each in dataclasses.fields(kind_of(name))}
        return {"name": name} | fields | {each: REFERRING[each] for each in REFERRING if each in fields}
    if name == "timm":
        return {"name": TIMM} | dataclasses.asdict(TimmConfig()) | REFERRING
    variant = NETWORKS[name]
    fields = dataclasses.asdict(variant) | REFERRING
    if isinstance(variant, TNTConfig) and variant.words * variant.c == variant.patch_dim:
        fields["word_dim"] = None
    return {"name": name} | fields


def _sorted_out(overrides: Sequence[str]) -> tuple[list[str], list[tuple[str, Any]]]:
    """Groups' choices for Hydra and single values; names are checked first, so that mistakes are told in our
    words."""
    groups: list[str] = []
    singles: list[tuple[str, Any]] = []
    chosen = [text.partition("=")[2] for text in overrides if text.startswith("model=")]
    name = "timm" if any(each.startswith(TIMM) for each in chosen) else ["tnt_s", *chosen][-1]
    known_name = name if name in (*NETWORKS, "timm") else "tnt_s"
    network = _network(_own_network(overrides) or known_name)
    del network["name"]  # it comes with the choice
    known = _defaults() | {"model": network}
    for text in overrides:
        key, equals, raw = text.partition("=")
        if not equals:
            raise UserError(f"{text!r} is no override; write name=value, such as recipe.lr=5e-4")
        if key == "model" and raw.startswith(TIMM):
            groups.append("model=timm")
            singles.append(("model.name", raw))
        elif key == "model" and is_own(raw):
            groups.append("model=timm")  # it has no fields but those that all networks have
        elif key == "data" and raw.endswith(DATA_FILE):
            singles += _data_of(Path(raw), known)
        elif key in GROUPS:
            if raw not in choices(key):
                raise unknown_name(key, raw, choices(key))
            groups.append(text)
        else:
            key = "recipe.init" if key == "init" else key  # `recipe=finetune_384 init=…`, as one says it
            default = _lookup(known, key)
            singles.append((key, _value(key, raw, default)))
    return groups, singles


def _data_of(path: Path, known: dict[str, Any]) -> list[tuple[str, Any]]:
    """The settings of a set of one's own, from its file."""
    values = read_plain(path)
    if not isinstance(values, dict) or not {"name", "root", "classes"} <= values.keys():
        raise UserError(f"data={path} must say name, root and classes, each on a line")
    found = [(f"data.{name}", value) for name, value in flattened(values)]
    for name, _ in found:
        _lookup(known, name)
    return found


def _value(key: str, raw: str, default: Any) -> Any:
    if isinstance(default, str) and not default.startswith("${"):
        quoted = len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "\"'"
        return raw[1:-1] if quoted else raw  # as typed: a path may hold commas, a run's id look like a number
    if not isinstance(default, list | tuple) or raw.startswith("["):
        return composition.parsed(key, raw)
    try:  # options as one types them: cluster.extra='--exclude=n[1-2] --comment="a word"'
        return shlex.split(raw)
    except ValueError as error:
        raise UserError(f"cannot read {key}={raw}: {error}") from None


def _lookup(known: dict[str, Any], key: str) -> Any:
    node: Any = known
    path = ""
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            where = f" of {path}" if path else ""
            valid = list(node) if isinstance(node, dict) else []
            if not valid:
                raise UserError(f"unknown setting {key!r}: {path} has no settings below it")
            raise unknown_name(f"setting{where}", part, valid)
        node = node[part]
        path = f"{path}.{part}" if path else part
    if isinstance(node, dict):
        raise UserError(f"{key} is a section; set one of {', '.join(f'{key}.{name}' for name in node)}")
    return node
