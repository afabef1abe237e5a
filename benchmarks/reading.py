"""What an indexed sample costs besides decoding, and how long it takes to be at any step.

    python benchmarks/reading.py [--data DIR] [--rounds 7]

Processor time of one process, page cache warm; figures are medians over rounds. The machine's load is said,
because it shows even in processor time: caches and memory are shared.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from photographs import make_set

from pipeline.data.loading.rendering import Task, TaskImage, describe
from pipeline.data.loading.sampler import Sampling, TrainOrder
from pipeline.data.shards.manifest import Manifest, Shard
from pipeline.data.shards.reader import ShardFiles

RUN = 32  # samples of a task


def print_overhead(manifest: Manifest, rounds: int = 7) -> None:
    found = [_epoch(manifest, epoch) for epoch in range(rounds)]
    order, task, unhashed, hashed, copy = np.median(found, axis=0)
    print(f"index and read, {manifest.length.mean() / 1e3:.1f} kB a sample, load {os.getloadavg()[0]:.1f}:")
    print(
        f"order {order:.2f}, tasks {task:.2f}, read {unhashed:.1f}: {order + task + unhashed:.1f} µs; ",
        end="",
    )
    print(f"hashed too: {order + task + hashed:.1f}; of both the kernel's copy {copy:.1f}")


def _epoch(manifest: Manifest, epoch: int) -> np.ndarray:
    """Microseconds a sample: its order; its task, made, sent and taken; announced and read without its hash
    and with it; and the bare system call."""
    order = TrainOrder(manifest, Sampling(global_batch=len(manifest) // RUN * RUN, repeats=1))
    position = np.arange(order.sampling.global_batch)
    order.samples(epoch, position)  # the epoch's permutation, once for all its steps
    begun = time.process_time()
    samples = order.samples(epoch, position)
    chosen = time.process_time()
    tasks = []
    for start in range(0, len(samples), RUN):
        images = describe(manifest, samples[start : start + RUN])
        tasks.append(Task.unpacked(Task(0, 0, epoch, start, start, images).packed()))
    described = time.process_time()
    files = ShardFiles(manifest.root, [shard.name for shard in manifest.shards])
    opened = [os.open(manifest.path(shard), os.O_RDONLY) for shard in range(len(manifest.shards))]
    buffer = memoryview(bytearray(int(manifest.length.max())))

    def announced(images: list[TaskImage]) -> None:
        for image in images:
            files.announce(image.shard, image.offset, image.length)

    def unhashed(images: list[TaskImage]) -> None:
        announced(images)
        for image in images:
            files._read(image.shard, image.offset, image.length)

    def hashed(images: list[TaskImage]) -> None:
        announced(images)
        for image in images:
            files.read(image.shard, image.offset, image.length, image.xxh3)

    def copied(images: list[TaskImage]) -> None:
        for image in images:
            os.preadv(opened[image.shard], [buffer[: image.length]], image.offset)

    spent = [chosen - begun, described - chosen]
    for way in (unhashed, hashed, copied):
        begun = time.process_time()
        for task in tasks:
            way([TaskImage(*image) for image in task.images.tolist()])
        spent.append(time.process_time() - begun)
    files.close()
    for file in opened:
        os.close(file)
    return np.array(spent) / len(samples) * 1e6


def resume_seconds(order: str) -> float:
    """From nothing but a manifest of ImageNet's size to the views of a step in mid-training."""
    manifest = imagenet_sized()
    begun = time.perf_counter()
    sampling = Sampling(order=order)
    position = 777 * sampling.global_batch + np.arange(384, 512)
    TrainOrder(manifest, sampling).samples(211, position)
    return time.perf_counter() - begun


def print_resuming() -> None:
    for order in ("global", "lane"):
        print(f"any step of epoch 211 of 1,281,167 samples, order {order}: {resume_seconds(order):.2f} s")


def imagenet_sized(samples: int = 1_281_167, per_shard: int = 2460) -> Manifest:
    held = [min(per_shard, samples - start) for start in range(0, samples, per_shard)]
    place = np.arange(samples) % per_shard
    return Manifest(
        root="/nowhere",  # type: ignore[arg-type]
        split="train",
        classes=tuple(map(str, range(1000))),
        shards=tuple(Shard(f"x-train-{i:04d}.tar", n, 106_000 * n, "0" * 64) for i, n in enumerate(held)),
        key=np.char.mod(b"%08d", np.arange(samples)),
        label=np.arange(samples) % 1000,
        shard=np.repeat(np.arange(len(held)), held),
        offset=place * 106_000,
        length=np.full(samples, 104_000),
        xxh3=np.arange(samples),
        width=np.full(samples, 500),
        height=np.full(samples, 375),
        kind=np.zeros(samples),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "loading-benchmark")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print_overhead(make_set(arguments.data), arguments.rounds)
    print_resuming()


if __name__ == "__main__":
    main()
