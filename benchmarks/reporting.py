"""How long the report takes: without records, with thousands, and when sizes are counted afresh.

    python -m benchmarks.reporting --records 10000

Processor seconds beside wall ones: on a shared machine only the former say something.
"""

import argparse
import dataclasses
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

from ablations import spec
from pipeline.config.identity import id_of
from pipeline.runs import records
from tests.ablations.recorded import record_of

ROOT = Path(__file__).parent.parent


def fill(folder: Path, count: int) -> None:
    """Records of all cells of Tables 4 to 7 with many seeds, a third of them of 100 epochs."""
    names = ("imagenet", "inner_heads", "patch_size", "position_encoding", "se")
    cells = [
        record_of(spec.composed(ablation, cell), 80.0, ablation=name)
        for name in names
        for ablation in spec.load(name).values()
        for cell in ablation.cells
    ]
    for seed, record in enumerate(islice(cycle(cells), count)):
        recipe = record.science["recipe"] | ({"epochs": 100} if seed % 3 == 0 else {})
        science = record.science | {"seed": seed, "recipe": recipe}
        id = id_of(science, record.fingerprint)
        steps = record.steps // 300 * recipe["epochs"]
        records.publish(dataclasses.replace(record, id=id, science=science, seed=seed, steps=steps), folder)


def timed(*arguments: str) -> tuple[float, float]:
    """Wall and processor seconds of one report."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, ROOT / "ablations" / "report.py", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = ["--results", folder]
        none, many = Path(folder) / "none", Path(folder) / "many"
        none.mkdir()
        fill(many, options.records)
        cases = {
            "sizes counted": [*results, "--records", str(none), "--refresh"],
            "no records": [*results, "--records", str(none)],
            f"{options.records:,} records": [*results, "--records", str(many)],
        }
        for name, arguments in cases.items():
            wall, busy = timed(*arguments)
            print(f"{name:20} {wall:6.1f} s, {busy:6.1f} s of a processor")


if __name__ == "__main__":
    main()
