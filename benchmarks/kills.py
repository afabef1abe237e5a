"""Kills small real runs again and again, and compares what they leave with a run that nobody touched.

    python -m benchmarks.kills --random 100 --placed 100

A training is killed, and started again by the same command, until it ends. A random kill comes after a random
time. A placed one comes from inside, before a file is opened for writing, a line, a rename or a flush to the
disk: before which of them is drawn among as many as an undisturbed run makes. Weights, their average, the
optimizer's state and the metrics must then be those of the undisturbed run, to the bit.
"""

import argparse
import contextlib
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.digits import digits
from tests.pipeline.ranks import DEADLINE, ROOT, start
from tests.pipeline.small_runs import Left, Place

# Runs a script. Before its n-th act of storing it says which that is and kills itself; else it leaves their
# number in the folder.
PROGRAM = """
import os, runpy, signal, sys
from pipeline.runs.log import LineFile
place, folder, sys.argv = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
acts = 0
def before(act):
    global acts
    acts += 1
    if acts == place:
        os.write(1, f"{act}\\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)
def guarded(act, call):
    def guard(*args, **options):
        before(act)
        return call(*args, **options)
    return guard
def opened(event, args):
    if event == "open" and str(args[0]).startswith(folder) and args[2] & (os.O_WRONLY | os.O_RDWR):
        before("open")
for name in ("fsync", "rename", "replace"):
    setattr(os, name, guarded(name, getattr(os, name)))
LineFile.write = guarded("line", LineFile.write)
sys.addaudithook(opened)
sys.path[0] = os.path.dirname(sys.argv[0])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    done = str(acts)
    open(os.path.join(folder, "acts"), "w").write(done)
"""


def life(place: Place, act: int = 0, seconds: float | None = None) -> str:
    """Train until the end, until the n-th act of storing, or for some seconds; what came before a kill."""
    words = ("-c", PROGRAM, act, place.folder, ROOT / "pipeline/train.py", *place.settings)
    process = start(words)
    if seconds is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode in (0, -signal.SIGKILL), f"{place.folder}: status {process.returncode}\n{err}"
    if process.returncode == 0:
        return ""
    return out.split()[-1] if act else "any time"


def kill(random_kills: int, placed_kills: int, seed: int, folder: Path) -> str:
    """The figures; AssertionError where a training does not end as the undisturbed one."""
    draws, shards = random.Random(seed), folder / "shards"
    make(digits(), shards, Packing(workers=1))
    alone = Place(folder / "alone", shards)
    life(alone)
    gold = Left.by(alone.directory)
    again = Place(folder / "again", shards)  # the first one also imported
    began = time.monotonic()
    life(again)
    seconds = time.monotonic() - began
    acts = int((alone.folder / "acts").read_text())
    left = {"random": random_kills, "placed": placed_kills}
    kills: Counter[str] = Counter()
    trainings = 0
    while any(left.values()):
        trainings += 1
        place = Place(folder / str(trainings), shards)
        while True:
            kind = draws.choice([name for name, number in left.items() if number] or [""])
            act = draws.randint(1, acts) if kind == "placed" else 0
            came = life(place, act, draws.uniform(0, seconds) if kind == "random" else None)
            if not came:
                break
            left[kind] -= 1
            kills[came] += 1
        assert Left.by(place.directory) == gold, f"{place.folder}: seed {seed}, training {trainings}"
        assert place.record["raw"] == alone.record["raw"]
        print(f"{trainings} trainings, kills {dict(kills)}: equal", flush=True)
    return f"{kills.total()} kills in {trainings} trainings; one takes {seconds:.0f} s and {acts} acts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--random", type=int, default=100, metavar="N", help="kills after a random time")
    parser.add_argument("--placed", type=int, default=100, metavar="N", help="kills before an act of storing")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(kill(options.random, options.placed, options.seed, Path(folder)))


if __name__ == "__main__":
    main()
