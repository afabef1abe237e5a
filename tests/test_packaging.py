"""What a wheel holds, as setuptools computes it from setup.cfg."""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import Distribution

import tnt

ROOT = Path(__file__).parent.parent
# What the packages open beside their own modules when they are used outside of a checkout.
FILES = {
    "tnt/imagenet_classes.txt",
    "tnt/complexity/counted.json",
    *(f"pipeline/launching/view/page.{kind}" for kind in ("css", "js", "html")),
    "ablations/reporting/sizes.json",
    "pipeline/config/birth.json",
    "pipeline/launching/slurm/rank.sh",
    *(f"ablations/reporting/page/page.{kind}" for kind in ("css", "js", "html.j2")),
    *(f"{package}/py.typed" for package in ("tnt", "pipeline", "ablations")),
}


@pytest.fixture
def distribution(monkeypatch) -> Distribution:
    monkeypatch.chdir(ROOT)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files([ROOT / "setup.cfg"])
    return distribution


def test_a_wheel_holds_every_module_and_every_file_that_they_open(distribution):
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    modules = {Path(path) for _, _, path in build.find_all_modules()}
    data = {Path(source, name) for _, source, _, names in build.data_files for name in names}
    packages = [ROOT / package for package in ("tnt", "pipeline", "ablations")]
    assert modules == {path.relative_to(ROOT) for package in packages for path in package.rglob("*.py")}
    configs = {path.relative_to(ROOT) for path in (ROOT / "pipeline/conf").rglob("*.yaml")}
    assert configs
    assert configs | set(map(Path, FILES)) <= data


def test_the_version_stands_in_one_place(distribution):
    assert distribution.metadata.version == tnt.__version__


def test_one_command_knows_them_all(capsys, monkeypatch):
    from tnt import __main__ as commands

    monkeypatch.setattr("sys.argv", ["tnt", "--help"])
    commands.main()
    listed = capsys.readouterr().out
    for name, (module, _) in commands.COMMANDS.items():
        assert f"  {name} " in listed
        assert importlib.util.find_spec(module) is not None


def test_one_command_hands_its_arguments_on(capsys, monkeypatch):
    from tnt import __main__ as commands

    monkeypatch.setattr("sys.argv", ["tnt", "weights", "--help"])
    with pytest.raises(SystemExit, match="0"):
        commands.main()
    assert "Translate the weights" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["tnt", "lunch"])
    with pytest.raises(SystemExit, match="2"):
        commands.main()
    assert "did you mean 'launch'?" in capsys.readouterr().err


def modules_of(extra: str) -> set[str]:
    """The top-level modules of the packages that an extra installs, and of those that these need."""
    wanted, known = [Requirement(f"tnt-lab[{extra}]")], set()
    while wanted:
        one = wanted.pop()
        for each in map(Requirement, requires(one.name) or ()):
            optional = each.marker and any(each.marker.evaluate({"extra": name}) for name in one.extras)
            always = one.name != "tnt-lab" and (each.marker is None or each.marker.evaluate({"extra": ""}))
            if (optional or always) and str(each) not in known:
                known.add(str(each))
                wanted.append(each)
    names = {canonicalize_name(Requirement(text).name) for text in known}
    found = packages_distributions().items()
    return {module for module, packages in found if names & set(map(canonicalize_name, packages))}


WITHOUT = """import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused}:
            raise ModuleNotFoundError(f"no module {{name}}", name=name)
sys.meta_path.insert(0, Refused())
from {module} import main
assert main({words}) == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "module", "words"),
    [
        ("launch", "pipeline.launch", ["ablation=all", "action=plan", "cluster=local"]),
        ("launch", "pipeline.launch", ["ablation=all", "action=status", "scale=demo", "cluster=local"]),
        ("report", "ablations.report", ["--html", "--figures"]),
    ],
)
def test_a_command_needs_no_more_than_its_extra_says(extra, module, words, tmp_path):
    """As on a login node, where `pip install --no-deps` left PyTorch out."""
    ours = {"tnt", "pipeline", "ablations"}
    refused = packages_distributions().keys() - (modules_of(extra) - {"torch"}) - ours
    assert {"torch", "deepspeed", "webdataset"} <= refused
    program = WITHOUT.format(refused=refused, module=module, words=words)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_container_copies_what_is_there_and_installs_extras_that_are(distribution):
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    assert set(copied) == allowed
    assert all((ROOT / name).exists() for name in copied)
    (install,) = [line for line in lines if "pip install" in line]
    extras = install.split("[")[1].split("]")[0].split(",")
    assert set(extras) <= set(distribution.extras_require)


def test_the_apptainer_definition_is_the_dockerfile():
    docker = (ROOT / "Dockerfile").read_text()
    lines = [line.strip() for line in (ROOT / "tnt-lab.def").read_text().splitlines()]
    files = lines[lines.index("%files") + 1 : lines.index("%post")]
    copied = [word for line in docker.splitlines() if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert [line.split()[0] for line in files if line] == copied
    assert {line.split()[1] for line in files if line} == {"/opt/tnt-lab/"}
    shell = " ".join(docker.replace("\\\n", " ").split())
    for line in lines[lines.index("%post") + 1 : lines.index("%runscript")]:
        assert line.replace("/opt/tnt-lab/", "").replace("/opt/tnt-lab[", ".[") in shell
    assert f"FROM {lines[lines.index('Bootstrap: docker') + 1].removeprefix('From: ')}\n" in docker
    assert docker.endswith('ENTRYPOINT ["tnt"]\n')
    assert lines[-1] == 'exec tnt "$@"'
