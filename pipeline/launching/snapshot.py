"""A copy of the code as it is now, for runs that start later: `runs/.code/<hash>/`.

A queued run imports from there, so edits that are made while it waits, or between its attempts, do not change
it. Equal code is copied once. `code.json` in the copy has the commit, `diff.patch` what was changed since.
"""

import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import WorkFailed
from pipeline.runs.provenance import ROOT, SNAPSHOT, UNKNOWN, code, difference
from tnt.own.files import OwnNetwork

FOLDER = ".code"
ROOMS = ("tnt", "pipeline", "ablations")  # what a run imports, or is started by
LEFT_OUT = ("__pycache__",)
DIFFERENCE = "diff.patch"
LARGEST = 8 << 20  # bytes; a larger file is not code


def take(runs: Path, root: Path = ROOT, own: Iterable[OwnNetwork] = ()) -> Path:
    """Copy the code, and networks of one's own; the directory, which is the same for the same code."""
    if (root / SNAPSHOT).exists():
        return root  # this code runs from such a copy
    about, patch = code(root), difference(root)
    if about.commit == UNKNOWN:
        print(
            f"warning: {root}: git does not say which commit this is; records will not either",
            file=sys.stderr,
        )
    contents = {path: (root / path).read_bytes() for path in files(root)}
    contents |= {path: (each.folder / path).read_bytes() for each in own for path in each.files}
    said = {"commit": about.commit, "dirty": about.dirty}
    digest = hashlib.sha256(json.dumps(said).encode() + patch)
    for path, content in sorted(contents.items()):
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    directory = runs.absolute() / FOLDER / digest.hexdigest()[:16]
    if directory.exists():
        return directory
    contents[DIFFERENCE] = patch
    contents[SNAPSHOT] = (json.dumps(said, indent=1) + "\n").encode()
    _publish(directory, contents, root)
    return directory


def files(root: Path) -> list[str]:
    """The files of the packages, also those that are in no commit."""
    found = []
    for room in ROOMS:
        for path in sorted((root / room).rglob("*")):
            hidden = any(part.startswith(".") or part in LEFT_OUT for part in path.relative_to(root).parts)
            if path.is_file() and not hidden and path.stat().st_size <= LARGEST:
                found.append(path.relative_to(root).as_posix())
    return found


def _publish(directory: Path, contents: dict[str, bytes], root: Path) -> None:
    partial = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    try:
        for path, content in contents.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            (partial / path).write_bytes(content)
            if (root / path).exists():
                shutil.copymode(root / path, partial / path)
        os.rename(partial, directory)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not directory.exists():  # another launch may have just copied the same
            raise WorkFailed(f"the code cannot be kept in {directory}: {error.strerror}") from error
