"""Whatever becomes of a file on its way, its reader says so in our words, or reads it.

`make fuzz` tries many more changes than a run of all tests.
"""

import contextlib
import json
import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.overrides import compose
from pipeline.config.run import RunConfig
from pipeline.errors import UserError
from tests.faults.fuzzed import READERS, ask, inputs
from tests.pipeline.ranks import DEADLINE, start
from tests.sources import ROOT

CHANGES = settings(
    max_examples=int(os.environ.get("FUZZ", "30")),
    derandomize="FUZZ" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
LEAST = 95  # percent of each module's lines that the corpus must reach
COVERED = (
    "pipeline/config/composition.py",
    "pipeline/config/overrides.py",
    "pipeline/config/typed.py",
    "pipeline/data/images/decode.py",
    "pipeline/data/shards/manifest.py",
    "pipeline/data/shards/tar.py",
    "pipeline/runs/records.py",
    "tnt/untrusted/pictures.py",
    "tnt/untrusted/reading.py",
    "tnt/weights/formats.py",
    "tnt/weights/models.py",
    "tnt/weights/networks.py",
    "tnt/weights/pyramid.py",
    "tnt/weights/tensors.py",
)
PIECES = st.binary(max_size=8) | st.sampled_from([b"", b"9" * 40, b"[" * 40, b"\xff" * 8])


@pytest.mark.parametrize("name", READERS)
@CHANGES
@given(data=st.data())
def test_a_changed_input(name, data):
    changed = bytearray(data.draw(st.sampled_from(inputs(name))).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        at, piece = data.draw(st.integers(0, len(changed))), data.draw(PIECES)
        changed[at : at + data.draw(st.sampled_from([0, 1, len(piece), len(changed)]))] = piece
    ask(name, bytes(changed))


@CHANGES
@given(
    key=st.sampled_from(
        ["recipe.lr", "data.root", "data.augmentation.scale", "model", "model.depth", "seed"]
    ),
    value=st.text(max_size=12)
    | st.sampled_from(["[1,2", "${seed}", "${oc.env:HOME}", "{a:1}", "1e999", "0x10"]),
)
def test_an_override(key, value):
    with contextlib.suppress(UserError):
        assert isinstance(compose([f"{key}={value}"]), RunConfig)


@pytest.mark.nightly
def test_the_corpus_reaches_the_readers(tmp_path):
    """In a process of its own, which imports the modules under the eyes of coverage."""
    data = tmp_path / "reached"
    told = {"COVERAGE_FILE": str(data), "XDG_CACHE_HOME": str(tmp_path)}
    run = ("-m", "coverage", "run", f"--include={','.join(COVERED)}", "-m", "tests.faults.fuzzed")
    for command in (run, ("-m", "coverage", "json", "-q", "-o", data.with_suffix(".json"))):
        process = start(command, told, cold=True, cwd=ROOT)
        _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, said
    files = json.loads(data.with_suffix(".json").read_text())["files"]
    reached = {name: files[name]["summary"]["percent_covered"] for name in COVERED}
    print(*(f"{name} {share:.1f} %" for name, share in reached.items()), sep="\n", file=sys.stderr)
    assert not {name: files[name]["missing_lines"] for name, share in reached.items() if share < LEAST}
