"""Plain values to dataclasses and back, each checked against its annotation: configs and records."""

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pipeline.errors import UserError, unknown_name

T = TypeVar("T")
LARGEST = 2**63 - 1  # of a whole number


def build(kind: type[T], values: Any, path: str, **made: Any) -> T:
    """A dataclass from a dict: each field is checked against its annotation, or has its default."""
    if not isinstance(values, dict):
        raise UserError(f"{path}={values!r} is no section; set its values one by one")
    hints = _hints(typing.cast(Any, kind))
    prefix = f"{path}." if path else ""
    for name in values:
        if name not in hints:
            raise unknown_name(f"setting of {path}" if path else "setting", str(name), hints)
    for field in dataclasses.fields(typing.cast(Any, kind)):
        if field.name in values:
            made.setdefault(field.name, typed(hints[field.name], values[field.name], prefix + field.name))
        elif field.default is field.default_factory is dataclasses.MISSING and field.name not in made:
            raise UserError(f"{prefix}{field.name} is missing")
    try:
        return kind(**made)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from None


@functools.cache  # slow, and asked for once a record
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def typed(hint: Any, value: Any, path: str) -> Any:
    if hint is Any:
        return value
    if type(value) is hint:  # what most values are
        return _bounded(value, path)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, path)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        (hint,) = (option for option in inner if option is not type(None))
        return typed(hint, value, path)
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{path}={value!r} must be a section")
        return {str(name): typed(inner[1], item, f"{path}.{name}") for name, item in value.items()}
    if origin is tuple and inner[-1] is Ellipsis:
        if not isinstance(value, list | tuple):
            raise UserError(f"{path}={value!r} must be a list")
        return tuple(typed(inner[0], item, path) for item in value)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(inner):
            raise UserError(f"{path}={value!r} must be {len(inner)} values, as [a,b]")
        return tuple(typed(part, item, path) for part, item in zip(inner, value, strict=True))
    if hint is float and type(value) is int:
        return float(_bounded(value, path))
    name = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}[hint]
    raise UserError(f"{path}={value!r} must be {name}")


def _bounded(value: Any, path: str) -> Any:
    """What no later arithmetic can hold is refused here, by the setting's name."""
    if type(value) is int and abs(value) > LARGEST:
        raise UserError(f"{path} is a number of {value.bit_length()} bits; it must lie within ±{LARGEST}")
    if type(value) is str and "\0" in value:
        raise UserError(f"{path}={value!r} must not hold a NUL")
    return value


def listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, list | tuple) else value


def flattened(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as (a.b.c, value)."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `flattened`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        node = found
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise UserError(f"{name} lies below {section}, which is a value")
        node[last] = value
    return found
