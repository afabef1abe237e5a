"""A small run trained twice at once, one of them killed in the middle and started again: the same weights?

    python -m benchmarks.resume demo/data/digits demo/resume

`benchmarks.kills` does so hundreds of times, at every place where something is stored.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = (
    "scale=demo",
    "model=tnt_ti",
    "data.image_size=32",
    "recipe.global_batch=96",
    "recipe.epochs=2",
    "recipe.warmup_epochs=1",
    "logging.tensorboard=false",
    "engine.threads=1",
    "engine.checkpoint_minutes=0.01",
)


def start(data: Path, folder: Path) -> subprocess.Popen[bytes]:
    places = (f"data.root={data}", f"paths.runs={folder}", f"paths.records={folder}")
    with open(folder / "printed.txt", "ab") as printed:
        return subprocess.Popen(
            [sys.executable, ROOT / "pipeline/train.py", *SETTINGS, *places], stdout=printed, stderr=printed
        )


def ended(process: subprocess.Popen[bytes], folder: Path) -> str:
    """The hash of the weights that a training has left."""
    if process.wait() != 0:
        sys.exit(f"error: a training ended with status {process.returncode}; see {folder / 'printed.txt'}")
    [weights] = folder.glob("*/model.safetensors")
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="a folder of shards: the demo's digits")
    parser.add_argument("folder", type=Path, help="for the two runs; begun anew")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    places = [options.folder / name for name in ("alone", "killed")]
    for place in places:
        place.mkdir(parents=True)
    alone, killed = (start(options.data, place) for place in places)
    while killed.poll() is None and not list(places[1].glob("*/checkpoints/step-*")):
        time.sleep(0.01)
    killed.kill()  # no warning, as by a power cut
    killed.wait()
    [checkpoint, *_] = sorted(places[1].glob("*/checkpoints/step-*"), reverse=True)
    print(f"killed after the checkpoint {checkpoint.name}; started again", flush=True)
    again = start(options.data, places[1])
    hashes = [ended(alone, places[0]), ended(again, places[1])]
    print(f"not disturbed      weights {hashes[0][:16]}…\nkilled, continued  weights {hashes[1][:16]}…")
    print("the same bits" if hashes[0] == hashes[1] else "error: the weights differ")
    return int(hashes[0] != hashes[1])


if __name__ == "__main__":
    sys.exit(main())
