"""A step: nothing in it waits for the device or for another host, unless a line is written."""

import json
from pathlib import Path

import pytest

from pipeline.data.shards.manifest import Manifest
from tests.pipeline.packed import overwrite, pack_digits
from tests.pipeline.ranks import run_ranks

WORKER = Path(__file__).parent / "trainer_run.py"
LINES = (1, 4, 8)  # steps with a line in metrics.jsonl
POISONED = 6
SETTINGS = (
    "logging.every=4",
    "engine.checkpoint_minutes=0",
    "data.damage.total=0.01",
    "data.damage.shard=0.05",
)


@pytest.mark.slow
def test_a_step_waits_neither_for_the_device_nor_for_other_hosts_unless_a_line_is_written(tmp_path):
    """Except where something went wrong: the step after it names samples, or agrees upon damaged ones."""
    digits = Manifest.read(pack_digits(tmp_path / "digits"), "train")
    for sample in (100, 700, 1300):
        overwrite(digits, sample)
    options = {"settings": [*SETTINGS, f"data.root={digits.root}"], "steps": 8, "poisoned": POISONED}
    ranks = [json.loads(out) for out in run_ranks(2, [WORKER, json.dumps(options)])]
    for steps, events in ranks:
        damaged = 0
        for number, seen in enumerate(steps, start=1):
            expected = {"numbers of the step before": 1} if number - 1 not in (0, *LINES) else {}
            expected |= {"this step's numbers": 1} if number in LINES else {}
            expected |= {"host exchange": 1} if number in LINES[1:] else {}  # whose part took how long
            found = {name: n for name, n in seen.items() if name not in ("line", "skipped", "damaged")}
            if number == POISONED + 1 or seen["damaged"] > damaged:
                found["host exchange"] -= 1
                found = {name: n for name, n in found.items() if n}
                found = {name: n for name, n in found.items() if not name.startswith("read")}
            assert found == expected, f"step {number}"
            assert seen["line"] == (number in LINES)
            assert seen["skipped"] == (number > POISONED)
            damaged = seen["damaged"]
        [event] = events
        assert event.startswith(f"step {POISONED} was not finite and is skipped (sample")
    assert [seen["damaged"] for seen in ranks[0][0]] == [seen["damaged"] for seen in ranks[1][0]]
    assert damaged > 0
