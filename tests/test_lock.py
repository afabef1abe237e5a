"""requirements.lock, constraints.txt and setup.cfg say the same of the packages."""

import configparser
import re

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.sources import ROOT

# Of the extras `fuzz`, `audit` and `trackers`.
NOT_LOCKED = {"atheris", "pip-audit", "uv", "wandb", "mlflow-skinny", "trackio"}


def locked() -> dict[str, tuple[Requirement, list[str]]]:
    """By name: what is required, and the hashes of its published files."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        required, *hashes = line.split("--hash=")
        found[canonicalize_name(Requirement(required).name)] = Requirement(required), hashes
    return found


def versions() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = {
        canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)
    }
    return {name: version for name, version in found.items() if name not in NOT_LOCKED}


def required() -> list[Requirement]:
    """What setup.cfg names, but for the project itself."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [line.split("#")[0].strip() for text in texts for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("tnt-lab")]


def test_each_package_is_locked_in_one_version_with_hashes():
    for name, (requirement, hashes) in locked().items():
        assert [each.operator for each in requirement.specifier] == ["=="], name
        assert hashes, name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64} *", each) for each in hashes), name


def test_the_lock_has_the_versions_that_the_tests_passed_with():
    found = {name: next(iter(requirement.specifier)).version for name, (requirement, _) in locked().items()}
    assert found.items() >= versions().items(), "make lock"


def test_what_setup_names_has_a_version_that_it_allows():
    known = versions()
    for requirement in required():
        name = canonicalize_name(requirement.name)
        if name not in NOT_LOCKED:
            assert requirement.specifier.contains(known[name]), requirement
            assert name in locked(), f"{name}: make lock"
