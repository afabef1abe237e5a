"""What takes long to work out, and follows from its key alone, kept between commands in the user's folder.

Nothing depends on it: where that cannot be written, or holds what cannot be read, things are worked out.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.publish import publish_bytes


def folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tnt-lab"


def kept(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The value of that name, kept or made now; the name must be a hash of all that it follows from."""
    path = folder() / f"{name}.json"
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        value = None
    if isinstance(value, dict):
        return value
    value = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        publish_bytes(path, json.dumps(value).encode())
    except OSError:
        pass  # a home without room or leave to write is no reason to stop
    return value
