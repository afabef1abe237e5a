"""What a run adds to the bare step of its model, and how long it takes to its first one.

    python benchmarks/step.py --batch 16 --repeats 9
    python benchmarks/step.py --image-size 32          the host's work, which arithmetic on large images hides
    python benchmarks/step.py --image-size 32 --narrow   and without that of 24 M weights' average and norm

Ours is the whole step of pipeline/train.py: data from shards through the augmentation, DeepSpeed, the check
for what is not finite, the weights' average, the exchange of flags, the log. Bare is forward, backward
and AdamW of the same network on one batch that stays in memory. They take turns, so that a machine whose
speed drifts drifts for both; the medians' ratio is the figure, by wall time and by processor time of the
trainer's process (which neighbours on a shared machine disturb less; the data's workers are not in it).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from pipeline.config.overrides import compose
from pipeline.config.run import RunConfig
from pipeline.data import dataset
from pipeline.processes.device import find_device
from pipeline.processes.interrupt import Interrupt
from pipeline.processes.place import Place
from pipeline.processes.ranks import joined
from pipeline.runs.checkpoints import Checkpoints
from pipeline.training import models
from pipeline.training.logger import RunLogger, RunSize
from pipeline.training.optim import optimizer
from pipeline.training.trainer import Trainer

ROOT = Path(__file__).parent.parent


def bare(config: RunConfig) -> Callable[[], None]:
    model = models.create(config.model).train()
    update = optimizer(model, config.recipe)
    size = config.data.image_size
    images = torch.randn(config.recipe.global_batch, 3, size, size).to(memory_format=torch.channels_last)
    targets = torch.rand(len(images), config.data.classes).softmax(dim=1)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            logits = model(images)
        cross_entropy(logits.float(), targets).backward()
        update.step()
        update.zero_grad()

    return step


def compare(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of each step by each clock, the steps taking turns."""
    clocks = {"wall": time.perf_counter, "processor": time.process_time}
    taken: dict[str, dict[str, list[float]]] = {clock: {name: [] for name in steps} for clock in clocks}
    for step in steps.values():
        step()
    for _ in range(repeats):
        for name, step in steps.items():
            began = {clock: read() for clock, read in clocks.items()}
            step()
            for clock, read in clocks.items():
                taken[clock][name].append(read() - began[clock])
    return {clock: {name: statistics.median(of) for name, of in by.items()} for clock, by in taken.items()}


def time_to_first_step(folder: Path) -> float:
    """Of the demo's command, from its start to the line of its first step."""
    command = [sys.executable, str(ROOT / "pipeline/train.py"), "scale=demo"]
    command += [f"paths.runs={folder / 'first'}", f"paths.records={folder}", f"paths.data={folder}"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not any(path.stat().st_size for path in folder.glob("first/*/metrics.jsonl")):
        assert process.poll() is None, "the run ended before its first step"
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    process.kill()
    process.wait()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tnt_s")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--narrow", action="store_true", help="as many tensors and operators, small ones")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = compose(
            [
                f"model={options.model}",
                "data=digits",
                f"data.root={folder / 'digits'}",
                f"data.image_size={options.image_size}",
                f"paths.runs={folder / 'runs'}",
                f"precision={options.precision}",
                f"recipe.global_batch={options.batch}",
                f"data.loading.workers={options.workers}",
                "data.loading.batches=2",  # little is prepared while the bare step runs
                *(("model.patch_dim=48", "model.word_dim=8") if options.narrow else ()),
            ]
        )
        dataset.prepare(config.data)
        print(f"CPU {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {options}")
        device = find_device("cpu", Place("plain"))
        with (
            joined(Place("plain"), device, 600) as ranks,
            Interrupt() as interrupt,
            Trainer(config, ranks, device) as trainer,
        ):
            size = RunSize(trainer.steps, trainer.loader.steps_per_epoch, options.batch)
            logger = RunLogger(folder / "runs", config.logging, size)
            logger.rewind(0)
            steps = trainer.steps_of_epoch(interrupt)
            waits: list[float] = []

            def whole() -> None:
                done = next(steps)
                logger.step(trainer.state.step, done.values, done.wait)
                waits.append(done.wait)

            seconds = compare({"whole": whole, "bare": bare(config)}, options.repeats)
            began = time.perf_counter()
            copied = trainer.copy()
            copying = time.perf_counter() - began
            Checkpoints(folder / "checkpoints").publish(1, copied, trainer.checkpoint_state())
            saving = time.perf_counter() - began
            logger.close()
        for clock, figures in seconds.items():
            more = figures["whole"] - figures["bare"]
            spent = ", ".join(f"{name} {figures[name]:.3f} s" for name in ("whole", "bare"))
            print(f"{clock}: {spent}, overhead {1e3 * more:+.0f} ms, {more / figures['bare']:+.1%}")
        print(f"waiting for data {statistics.median(waits[1:]) / seconds['wall']['whole']:.1%}")
        minutes = config.engine.checkpoint_minutes
        print(
            f"a checkpoint {saving:.2f} s, of which training waits {copying:.2f} s; every {minutes:g} "
            f"minutes: {copying / minutes / 60:.2%} of the run"
        )
        print(f"demo: {time_to_first_step(folder):.1f} s from the command to the first step")


if __name__ == "__main__":
    main()
