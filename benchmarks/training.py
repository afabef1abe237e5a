"""The trainer itself, with its data: images a second, waiting, the share of a GPU's peak, a trace.

    python benchmarks/training.py OUT --steps 100 --batch 128

It trains TNT-S on JPEG files of ImageNet's sizes by pipeline/train.py. Where a package that this needs is
missing, that is said, and nothing is run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
NEEDED = ("deepspeed", "hydra", "simplejpeg", "cv2", "sklearn", "xxhash", "submitit", "webdataset", "rich")
SHARES = ("wait_share", "flop_utilisation", "roofline_share", "memory_gb")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--photographs", type=int, default=1536)
    options = parser.parse_args()
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(f"the trainer was not run: {', '.join(missing)} missing; benchmarks/README.md names the wheels")
        return 0
    from photographs import make_set

    out = options.out / "training"
    manifest = make_set(out / "photographs", options.photographs)
    epochs = -(-options.steps // max(1, len(manifest) // options.batch))
    settings = [
        "model=tnt_s",
        f"data.root={manifest.root}",
        "data.classes=10",
        "data.validation=train",
        f"recipe.global_batch={options.batch}",
        f"recipe.epochs={epochs}",
        f"recipe.evaluate_every={epochs}",
        "recipe.warmup_epochs=1",
        "recipe.cooldown_epochs=0",
        "logging.every=10",
        "logging.tensorboard=false",  # which such a machine may lack
        "engine.profile=10-12",
        "engine.checkpoint_minutes=0",
        f"engine.checkpoint_every={epochs}",
        f"paths.runs={out / 'runs'}",
        f"paths.records={out / 'records'}",
    ]
    subprocess.run([sys.executable, str(ROOT / "pipeline/train.py"), *settings], check=True)
    [run] = (out / "runs").iterdir()
    lines = [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]
    rows = [row for row in lines if "images_per_second" in row][1:]  # the first step starts and compiles
    print(f"{statistics.median(row['images_per_second'] for row in rows):.1f} images/s in training")
    for name in SHARES:
        if found := [row[name] for row in rows if name in row]:
            print(f"{name} {statistics.median(found):.4f}")
    print(f"a trace and a table of steps 10 to 12: {run}/profile.*")
    return 0


if __name__ == "__main__":
    sys.exit(main())
