"""A wheel holds what the commands need where there is no checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("tnt", "pipeline", "ablations")
LEFT_OUT = ("__pycache__", "local")  # of a checkout alone: caches, and the user's own profiles


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_packages(tmp_path):
    source = tmp_path / "source"  # setuptools leaves its own files beside what it builds from
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    files = [path for package in PACKAGES for path in (source / package).rglob("*") if path.is_file()]
    needed = {path.relative_to(source).as_posix() for path in files}
    assert "pipeline/launching/slurm/rank.sh" in needed
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", tmp_path, source], check=True, timeout=300)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert needed - held == set()
