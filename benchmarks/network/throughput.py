"""Images per second of our TNT beside timm's TNT and DeiT, in one process, inference and training.

    python benchmarks/network/throughput.py                          on the GPU, else the CPU
    python benchmarks/network/throughput.py --preset gpu --csv out   what is promised for it, in 8 minutes
    python benchmarks/network/throughput.py --preset gpu --models tnt_b tnt_s_legacy --csv out2

Each round times every network once, in turn, so that a machine whose speed drifts drifts for all; the medians
count. `of promise` is the ratio to DeiT over the ratio of their multiply-adds, `of peak` the multiply-adds a
second (three times as many in training) over those of one large product, measured here too. A CSV has the
columns of timm's own benchmark tables. What the time does not allow is left out, and said.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import platform
import statistics
import sys
import time
import traceback
from pathlib import Path

import timm
import torch
from contests import MODES, PIXELS, RIVALS, Contest, Contestant, matrix_peak

PRESETS = {
    "gpu": {"models": ["tnt_s", "tnt_b", "tnt_s_legacy"], "batches": [256], "repeats": 20, "minutes": 5.0},
    "cpu": {"batches": [8], "repeats": 5, "modes": ["plain"], "minutes": 5.0},
}


def main() -> int:
    failed: list[str] = []
    options = parsed()
    device = torch.device(options.device)
    deadline = time.monotonic() + 60 * options.minutes
    peak = matrix_peak(device, options.precision)
    print(described(device, options.precision, peak))
    for batch in options.batches:
        for variant in options.models:
            for phase in options.phases:
                contest = Contest(
                    variant,
                    phase == "training",
                    batch,
                    options.precision,
                    device,
                    options.drop_path if phase == "training" else 0.0,
                    tuple(mode for mode in MODES if mode in options.modes),
                )
                report(contest, run(contest, options.repeats, deadline, failed), peak, options.csv)
                torch.compiler.reset()
                gc.collect()
    for line in failed:
        print(f"failed: {line}")
    return 1 if failed else 0


def run(contest: Contest, repeats: int, deadline: float, failed: list[str]) -> list[Contestant]:
    """What could be entered, timed; `failed` gets the others."""
    entries = []
    for side, name, mode in contest.sides():
        if time.monotonic() > deadline:
            print(f"not measured, the time is up: {contest.variant} {phase_of(contest)}: {name} {mode}")
            continue
        try:
            entries.append(contest.enter(side, name, mode))
        except Exception:  # one that this device or its compiler refuses must not cost the others' figures
            failed.append(f"{contest.variant} {phase_of(contest)}: {name} {mode}")
            traceback.print_exc(file=sys.stdout)
    for _ in range(repeats if entries else 0):
        for entry in entries:
            contest.time(entry)
    return entries


def report(contest: Contest, entries: list[Contestant], peak: float, folder: Path | None) -> None:
    if not entries:
        return
    deits = {entry.mode: entry for entry in entries if entry.side == "deit"}
    print(f"\n{contest.variant}, {phase_of(contest)}, batch {contest.batch}")
    columns = f"{'images/s':>9} {'to DeiT':>8} {'of promise':>11} {'of peak':>8} {'GiB':>6}"
    print(f"{'network':26} {'mode':15} {columns}")
    for entry in entries:
        rate = speed(contest, entry)
        deit = deits.get("compiled" if "compiled" in entry.mode else "plain")
        ratio = rate / speed(contest, deit) if deit else float("nan")
        promise = ratio * entry.macs / deit.macs if deit else float("nan")
        share = rate * entry.macs * (3 if contest.training else 1) / peak
        print(
            f"{entry.name:26} {entry.mode:15} {rate:9.1f} {ratio:8.2f} {promise:11.2f} {share:8.1%} "
            f"{entry.memory / 2**30:6.1f}"
        )
    summary(contest, entries)
    if folder:
        write(contest, entries, folder)


def summary(contest: Contest, entries: list[Contestant]) -> None:
    """The figures of the aims: the best mode of each side."""
    best = {
        side: max((e for e in entries if e.side == side), key=lambda e: speed(contest, e), default=None)
        for side in ("ours", "deit", "timm")
    }
    ours = best["ours"]
    for side, rival in best.items():
        if ours and rival and side != "ours":
            ratio = speed(contest, ours) / speed(contest, rival)
            memory = f", memory {ours.memory / rival.memory:.2f} of its" if rival.memory else ""
            print(f"best of ours ({ours.mode}) to best of {side} ({rival.mode}): {ratio:.2f}{memory}")


def write(contest: Contest, entries: list[Contestant], folder: Path) -> None:
    """timm's columns, and three of ours after them."""
    folder.mkdir(parents=True, exist_ok=True)
    phase = "train" if contest.training else "infer"
    path = folder / f"benchmark-{phase}-{contest.precision}.csv"
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        rows = csv.writer(file)
        if fresh:
            own = ("img_size", "batch_size", "samples_per_sec", "step_time", "gmacs")
            rows.writerow(
                ["model", *(f"{phase}_{name}" for name in own), "param_count", "mode", "peak_gib", "on"]
            )
        for entry in entries:
            rows.writerow(
                [
                    entry.name,
                    PIXELS,
                    contest.batch,
                    round(speed(contest, entry), 2),
                    round(1e3 * statistics.median(entry.seconds), 3),
                    round(entry.macs / 1e9, 2),
                    round(entry.params / 1e6, 2),
                    f"{entry.side} {entry.mode}",
                    round(entry.memory / 2**30, 2),
                    machine(contest.device),
                ]
            )


def speed(contest: Contest, entry: Contestant) -> float:
    return contest.batch / statistics.median(entry.seconds)


def phase_of(contest: Contest) -> str:
    return "training" if contest.training else "inference"


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()}, {os.cpu_count()} cores"


def described(device: torch.device, precision: str, peak: float) -> str:
    versions = f"torch {torch.__version__}, timm {timm.__version__}"
    load = f", load {os.getloadavg()[0]:.1f}" if device.type == "cpu" else ""
    return f"{machine(device)}{load}, {versions}, {precision}, matrix peak {2 * peak / 1e12:.2f} TFLOP/s"


def parsed() -> argparse.Namespace:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="gpu" if gpu else "cpu")
    parser.add_argument("--models", nargs="+", choices=list(RIVALS), default=["tnt_s"])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument(
        "--phases", nargs="+", choices=("training", "inference"), default=["training", "inference"]
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[256])
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--drop-path", type=float, default=0.1, help="in training, on all sides")
    parser.add_argument("--minutes", type=float, default=60.0, help="no network is started after so many")
    parser.add_argument("--csv", type=Path, metavar="FOLDER", help="write benchmark-*.csv there")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if gpu else "cpu")
    parser.set_defaults(**PRESETS[parser.parse_known_args()[0].preset])
    options = parser.parse_args()
    if options.device == "cuda" and not gpu:
        parser.error("no CUDA device here; take --device cpu")
    if options.preset == "gpu" and options.device == "cpu":
        parser.error("--preset gpu needs a CUDA device; take --preset cpu")
    if options.device == "cpu" and any("fused" in mode for mode in options.modes):
        parser.error("fused kernels need a CUDA device; take --modes plain compiled")
    return options


if __name__ == "__main__":
    sys.exit(main())
