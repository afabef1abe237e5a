"""What made a number: the code's commit and the versions of what it stands on."""

import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("torch", "deepspeed", "timm", "numpy", "pillow", "simplejpeg")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Code:
    commit: str
    dirty: bool  # the tree held changes that the commit does not


def code(root: Path = ROOT) -> Code:
    """As of now: to be asked at the start of a run, before anybody edits on."""
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return Code(UNKNOWN, True) if commit is None or changes is None else Code(commit, bool(changes))


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
