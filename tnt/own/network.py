"""Networks of one's own are made here, and what goes wrong in their files is told."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tnt.own.files import find
from tnt.untrusted.reading import UserError

if TYPE_CHECKING:
    from torch import nn

LOADED: set[str] = set()  # files of networks that were made here


def make(name: str, values: Mapping[str, Any]) -> nn.Module:
    """The network with these settings and random weights; its module is imported now."""
    from torch import nn

    own = find(name)
    module, _, attribute = name.partition(":")
    LOADED.update(str(own.folder / each) for each in own.files)
    if str(own.folder) not in sys.path:
        sys.path.append(str(own.folder))
    with told():
        held = importlib.import_module(module)
        if held.__file__ is None or not Path(held.__file__).samefile(own.path):
            raise UserError(f"{module} is {held.__file__} here, not {own.path}; give it another name")
        config = getattr(held, own.kind)(**values)
        network: Any = getattr(held, attribute)(config)
    if not isinstance(network, nn.Module):
        raise UserError(f"{own.path}: {attribute} made {type(network).__name__}, no torch.nn.Module")
    if not hasattr(network, "config"):
        network.config = config
    return network


@contextmanager
def told() -> Iterator[None]:
    """An error in a file of a network that was made here is one line, with that file and the line in it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        places = traceback.extract_tb(error.__traceback__)
        if isinstance(error, SyntaxError) and error.filename in LOADED:
            raise UserError(f"{error.filename}:{error.lineno}: {error.msg}") from error
        for place in reversed(places):
            if place.filename in LOADED:
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                raise UserError(f"{place.filename}:{place.lineno}: {kind}{text}") from error
        raise
