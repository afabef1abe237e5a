"""The settings of a network of one's own, as a section `model` that is checked like the others."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.errors import Range, check_ranges
from tnt.config import MOST
from tnt.own.files import OwnNetwork, find


@dataclass(frozen=True)
class OwnConfig:
    """Each such network has a subclass, with its settings as fields."""

    ranges: ClassVar[dict[str, Range]] = {}
    source: ClassVar[str] = ""  # the hash of its files

    if TYPE_CHECKING:
        image_size: int
        classes: int
        drop_path: float

    def __post_init__(self) -> None:
        ranges = {name: valid for name, valid in self.ranges.items() if getattr(self, name) is not None}
        check_ranges(self, ranges, "model")


def kind_of(name: str) -> type[OwnConfig]:
    return _kind(find(name))


@functools.lru_cache(maxsize=32)
def _kind(own: OwnNetwork) -> type[OwnConfig]:
    fields: list[Any] = [
        (each.name, each.hint, dataclasses.field(default=each.default)) for each in own.settings
    ]
    ranges = {name: Range(1, MOST[name]) for name in ("image_size", "classes")}
    ranges |= {each.name: Range(*each.bounds) for each in own.settings if each.bounds is not None}
    namespace: dict[str, Any] = {"ranges": ranges, "source": f"sha256:{own.sha256}"}
    if "drop_path" not in {each.name for each in own.settings}:
        namespace["drop_path"] = 0.0
    return dataclasses.make_dataclass(
        own.kind, fields, bases=(OwnConfig,), frozen=True, kw_only=True, namespace=namespace
    )


def defaults(name: str) -> dict[str, Any]:
    """Of its settings; those that the data give may have none."""
    fields = dataclasses.fields(kind_of(name))
    return {each.name: None if each.default is dataclasses.MISSING else each.default for each in fields}
