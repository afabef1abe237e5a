"""What an indexed sample costs besides decoding, and how long it takes to be at any step."""

import time

import numpy as np
import xxhash

from pipeline.manifest import Manifest, Shard
from pipeline.reader import ShardFiles
from pipeline.rendering import Task, describe
from pipeline.sampler import Sampling, TrainOrder

RUN = 32  # samples of a task


def overhead(manifest: Manifest, rounds: int = 7) -> tuple[float, float, float, float]:
    """Microseconds a sample: its order, its task (made, sent, taken), its payload read, and hashed."""
    order = TrainOrder(manifest, Sampling(global_batch=len(manifest) // 8 * 8, repeats=1))
    files = ShardFiles(manifest.root, [shard.name for shard in manifest.shards])
    warm = memoryview(bytearray(int(manifest.length.max())))
    found = []
    for epoch in range(rounds):
        order.global_batch(epoch, 0)  # the epoch's permutation, once for all its steps
        begun = time.process_time()
        views = order.global_batch(epoch, 0)
        chosen = time.process_time()
        tasks: list[Task] = []
        for start in range(0, len(views), RUN):
            part = views[start : start + RUN]
            task = describe(manifest, 0, 0, epoch, part.sample, np.arange(RUN), part.position)
            tasks.append(Task.unpacked(task.packed()))
        described = time.process_time()
        for task in tasks:
            for xxh3, offset, _, shard, length, *_ in task.images.tolist():
                files.announce(shard, offset, length)
                files.read(shard, offset, length, xxh3)
        read = time.process_time()
        for length in manifest.length[views.sample].tolist():
            xxhash.xxh3_64_intdigest(warm[:length])  # in the cache, as what has just been read
        hashed = time.process_time() - read
        found.append((chosen - begun, described - chosen, read - described - hashed, hashed))
    order_of, task_of, read_of, hash_of = np.median(found, axis=0) / len(views) * 1e6
    return float(order_of), float(task_of), float(read_of), float(hash_of)


def resume_seconds(order: str) -> float:
    """From nothing but a manifest of ImageNet's size to the views of a step in mid-training."""
    manifest = imagenet_sized()
    begun = time.perf_counter()
    TrainOrder(manifest, Sampling(order=order)).share(211, 777, 3, 8)
    return time.perf_counter() - begun


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
