"""Which code produced a number: the commit, and the versions of the packages it uses."""

import functools
import hashlib
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from pipeline.config.typed import build
from pipeline.files import PACKAGE
from tnt.untrusted.reading import read_json

ROOT = PACKAGE.parent
PACKAGES = ("torch", "deepspeed", "timm", "numpy", "pillow", "simplejpeg")
UNKNOWN = "unknown"
SNAPSHOT = "code.json"  # in the root of a copy of the code: the `Code` of the original


@dataclass(frozen=True)
class Code:
    commit: str
    dirty: bool  # the tree held changes that the commit does not


def code(root: Path = ROOT) -> Code:
    """The code as it is now; call this at the start of a run, before the code is edited again."""
    if (root / SNAPSHOT).exists():
        return build(Code, read_json(root / SNAPSHOT, dict), "code")
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    if commit is None or changes is None:
        return Code(UNKNOWN, True)
    return Code(commit.decode().strip(), bool(changes.strip()))


def difference(root: Path = ROOT) -> bytes:
    """What was changed in the tree since its commit; empty where nothing was changed, or git does not say."""
    return _git(root, "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff") or b""


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def packages() -> str:
    """Every installed package with its version, a line each, as `pip freeze` has them."""
    found = {(one.metadata["Name"] or "").lower(): one.version for one in distributions()}
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found))


def packages_hash() -> str:
    return hashlib.sha256(packages().encode()).hexdigest()


def _git(root: Path, *arguments: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
