"""How large files and folders are, and that no name says two things. Each test lists every violation."""

import ast
import sys
from collections import defaultdict
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.sources import ROOT, Source, hold, repository

SOURCES = repository()
LINES = 300  # of a file
MODULES = 13  # of a folder, without __init__.py and __main__.py
# Whose files are run by their path.
SCRIPT_FOLDERS = ("pipeline", "ablations", "benchmarks", "benchmarks/network")


def long_files(sources: list[Source]) -> list[str]:
    lengths = {source.module: len(source.text.splitlines()) for source in sources}
    return [f"{module} has {length} lines" for module, length in lengths.items() if length > LINES]


def full_folders(sources: list[Source]) -> list[str]:
    packages = {source.module.rpartition(".")[0] for source in sources}
    inside = defaultdict(list)
    for source in sources:
        folder, _, name = source.module.rpartition(".")
        if source.module not in packages and name != "__main__":
            inside[folder].append(name)
    return [f"{folder} has {len(names)} modules" for folder, names in inside.items() if len(names) > MODULES]


def doubled_classes(sources: list[Source]) -> list[str]:
    places = defaultdict(list)
    for source in sources:
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(source.module)
    return [f"{name} in {', '.join(where)}" for name, where in places.items() if len(where) > 1]


def hidden_modules(root: Path) -> list[str]:
    """A script's folder comes first on sys.path: a file or folder there hides every module of its name."""
    taken = set(sys.stdlib_module_names) | set(packages_distributions())
    entries = [path for folder in SCRIPT_FOLDERS for path in (root / folder).iterdir()]
    modules = [path for path in entries if path.suffix == ".py" or path.is_dir()]
    return [path.relative_to(root).as_posix() for path in modules if path.stem in taken]


def test_files_are_short():
    hold(long_files([*SOURCES, *repository(("benchmarks", "tests"))]))


def test_folders_are_small():
    hold(full_folders([*SOURCES, *repository(("benchmarks",))]))


def test_a_public_class_name_says_one_thing():
    hold(doubled_classes(SOURCES))


def test_no_script_hides_another_module():
    hold(hidden_modules(ROOT))


# What each rule finds where it is broken.


def test_what_is_too_large_is_found():
    assert long_files([Source("tnt.a", "\n" * (LINES + 1)), Source("tnt.b", "\n" * LINES)]) == [
        f"tnt.a has {LINES + 1} lines"
    ]
    folder = [Source("tnt", ""), *(Source(f"tnt.m{number}", "") for number in range(MODULES + 1))]
    assert full_folders(folder) == [f"tnt has {MODULES + 1} modules"]
    assert full_folders(folder[:-1]) == []


def test_a_class_name_given_twice_is_found():
    text = "class Plan:\n    pass\n\n\nclass _Own:\n    pass\n"
    assert doubled_classes([Source("tnt.a", text), Source("pipeline.b", text)]) == [
        "Plan in tnt.a, pipeline.b"
    ]


def test_a_file_and_a_folder_that_hide_a_module_are_found(tmp_path):
    for folder in SCRIPT_FOLDERS:
        (tmp_path / folder).mkdir()
    (tmp_path / "pipeline" / "json.py").touch()
    (tmp_path / "ablations" / "numpy").mkdir()
    (tmp_path / "benchmarks" / "speed.py").touch()
    assert hidden_modules(tmp_path) == ["pipeline/json.py", "ablations/numpy"]
