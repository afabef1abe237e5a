"""Files that others wrote come in by one door, `tnt/untrusted/reading.py`. Each test lists all violations."""

import ast
from collections.abc import Iterator

from mypy import api as mypy

from tests.sources import ROOT, Source, hold, repository

SOURCES = repository()
DOOR = "tnt.untrusted.reading"
# What reads a file, or text of unknown length, without the door.
READERS = {
    "json.loads",
    "json.load",
    "yaml.safe_load",
    "yaml.load",
    "gzip.decompress",
    "tarfile.open",
    "np.load",
}
METHODS = {"read_text", "read_bytes", "open"}  # of a path
NUMBERS = {"int", "float"}  # handed over to be called; tests/text_numbers.py finds their calls on text
# Where that is right, and why.
ALLOWED = {
    # Files of this code's own, which lie beside it.
    ("pipeline.config.birth", "json.loads"),
    ("pipeline.config.birth", "read_text"),
    ("pipeline.config.composition", "read_text"),
    ("pipeline.launching.snapshot", "read_bytes"),
    ("pipeline.launching.view.server", "read_bytes"),
    ("ablations.reporting.page.render", "read_text"),
    ("ablations.reporting.sizes", "read_bytes"),
    ("tnt.complexity.counted", "read_bytes"),
    # Files that this process has just written or is about to write, and compares or hashes.
    ("ablations.reporting.text.files", "read_bytes"),
    ("pipeline.runs.directory", "read_bytes"),
    ("pipeline.runs.checkpoints", "open"),
    ("tnt.export", "open"),
    ("tnt.weights.tensors", "open"),
    # What the kernel says.
    ("pipeline.processes.device", "read_text"),
    ("pipeline.training.completion", "read_text"),
    # Looked at by the door before.
    ("pipeline.data.packing.sources.archives", "open"),
    ("pipeline.config.run", "yaml.safe_load"),
    ("tnt.shard_images", "tarfile.open"),
    ("tnt.feature_store", "np.load"),  # two small arrays of a file that may be larger than memory
    # Bounded by a pattern before.
    ("pipeline.launching.slurm.preflight", "map of float"),
    ("pipeline.training.profile", "map of int"),
}


def past_the_door(sources: list[Source]) -> list[str]:
    return [
        f"{source.module}:{line} calls {name}"
        for source in sources
        if source.module != DOOR
        for name, line in _readers(source.tree)
        if (source.module, name) not in ALLOWED
    ]


def not_needed(sources: list[Source]) -> list[str]:
    """Exceptions that nothing makes use of."""
    found = {(source.module, name) for source in sources for name, _ in _readers(source.tree)}
    return [f"{module} does not call {name}" for module, name in sorted(ALLOWED - found)]


def _readers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in sorted(calls, key=lambda call: call.lineno):
        name = ast.unparse(node.func)
        last = name.rpartition(".")[2]
        if name in READERS:
            yield name, node.lineno
        elif name == "map" and node.args and ast.unparse(node.args[0]) in NUMBERS:
            yield f"map of {ast.unparse(node.args[0])}", node.lineno
        elif any(each.arg == "type" and ast.unparse(each.value) in NUMBERS for each in node.keywords):
            yield "type of a number", node.lineno
        elif last in METHODS and name != "Image.open" and _reads(node, last):
            yield last, node.lineno


def _reads(call: ast.Call, name: str) -> bool:
    """`open` for reading alone; the door's own functions are called by their bare names."""
    if name != "open":
        return isinstance(call.func, ast.Attribute)
    text = ast.unparse(call)
    if text.startswith("os.open"):
        return "O_RDONLY" in text and "O_DIRECTORY" not in text
    texts = [part.value for part in ast.walk(call) if isinstance(part, ast.Constant)]
    modes = [text for text in texts if isinstance(text, str) and set(text) <= set("rwxab+t") and text]
    return not any(set(mode) & set("wxa+") for mode in modes)


def test_files_of_others_come_in_by_the_door():
    hold(past_the_door(SOURCES))


def test_every_exception_is_needed():
    hold(not_needed(SOURCES))


# What the rule finds where it is broken.


def test_a_reader_beside_the_door_is_found():
    text = "json.load(open(path))\npath.read_text()\npath.open('rb')\nos.open(path, os.O_RDONLY)\n"
    calls = ["1 calls json.load", "1 calls open", "2 calls read_text", "3 calls open", "4 calls open"]
    assert past_the_door([Source("tnt.a", text)]) == [f"tnt.a:{call}" for call in calls]
    assert past_the_door([Source("tnt.a", "open(path, 'ab')\nread_text(path)\nImage.open(file)\n")]) == []


def test_a_number_that_is_made_of_text_is_found_by_mypy(tmp_path):
    """`make lint` asks it about all code; here, that it asks."""
    path = tmp_path / "a.py"
    path.write_text(
        "def f(text: str, held: bytes | None, one: float) -> None:\n"
        "    int(text)\n    float(held or b'')\n    int(one), float('inf')\n"
    )
    said, errors, _ = mypy.run(["--config-file", str(ROOT / "setup.cfg"), str(path)])
    assert not errors
    assert [line.split(":")[1] for line in said.splitlines() if "[text-number]" in line] == ["2", "3"]
    assert said.count("error:") == 2


def test_a_number_that_is_made_of_text_by_another_is_found():
    calls = "map(int, words)\nadd('--n', type=float)\nmap(f, words)\nread(path, {'type': int})\n"
    found = ["tnt.a:1 calls map of int", "tnt.a:2 calls type of a number"]
    assert past_the_door([Source("tnt.a", calls)]) == found
