"""What `make lint` asks for, beside the other tests: mypy alone takes half a minute of one core."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import ROOT

RULES = re.search(r"^lint:.*\n((?:\t.+\n)+)", (ROOT / "Makefile").read_text(), flags=re.M)
COMMANDS = RULES[1].replace("\t$(BIN)/", "").splitlines()


def test_make_lint_is_known():
    assert [command.split()[0] for command in COMMANDS] == ["ruff", "ruff", "mypy"]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_found(command):
    program, *words = command.split()
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
