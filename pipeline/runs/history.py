"""What a run's own files said when a checkpoint was published, so that no later change of them goes unseen.

The metrics are a part of each checkpoint (`pipeline/training/logger.py`). Times and attempts are not the same
in two runs, so their hashes stand beside it, in its line of commits.jsonl.
"""

import hashlib
from pathlib import Path
from typing import Any

from pipeline.files import MOST_LINES
from pipeline.runs.directory import ATTEMPTS, TIMING
from tnt.untrusted.reading import other_than, read_bytes

GROWING = (TIMING, ATTEMPTS)


def noted(directory: Path) -> dict[str, Any]:
    """Size and hash of the whole lines of the files that grow; a restart removes one that was torn."""
    whole = {name: _content(directory / name) for name in GROWING}
    return {name: _entry(content[: content.rfind(b"\n") + 1]) for name, content in whole.items() if content}


def changes(directory: Path, commits: list[dict[str, Any]]) -> list[str]:
    """A line for each file whose beginning is not what it was at the newest checkpoint that noted it."""
    newest = next((line for line in reversed(commits) if isinstance(line.get("history"), dict)), None)
    if newest is None:
        return []
    found = []
    for name in GROWING:
        entry = newest["history"].get(name)
        if entry is None or other_than(entry, {"bytes": int, "sha256": str}):
            continue
        if _entry(_content(directory / name)[: entry["bytes"]]) != entry:
            found.append(f"{name} was changed or shortened since the checkpoint of step {newest['step']}")
    return found


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path, MOST_LINES)
    except FileNotFoundError:
        return b""


def _entry(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
