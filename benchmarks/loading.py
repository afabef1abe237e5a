"""Views per second of one worker core: this loader beside timm's and torchvision's, in one run.

    python benchmarks/loading.py [--data DIR] [--rounds 5]

Every round runs every loader for a while, each with one worker process pinned to one core and its trainer to
another, so that a machine whose speed drifts drifts for all. A round's figure is the views handed over per
second of the worker's processor time (neighbours on a shared machine are not counted) and per second of wall
time; the table has medians over rounds and ratios of medians. Batches are of 128 uint8 images of 224².
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from photographs import make_set
from processes import descendants, memory, processor_time
from reading import print_overhead, print_resuming

from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.loading.loader import Loading, TrainLoader
from pipeline.data.loading.sampler import Sampling
from pipeline.data.shards.manifest import Manifest

BATCH = 128  # DeiT's per device
WARM, TIMED = 8, 16  # batches
RECIPE = Augmentation()
Batches = Iterator[Any]


def timm_loader(root: Path) -> Batches:
    """timm's DeiT recipe over webdataset: Pillow, and uint8 batches by its prefetcher's collate."""
    import torch
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("wds/photographs", str(root), split="train", is_training=True, batch_size=BATCH)
    loader = create_loader(
        dataset,
        input_size=(3, 224, 224),
        batch_size=BATCH,
        is_training=True,
        re_prob=RECIPE.erase,
        re_mode="pixel",
        auto_augment=RECIPE.randaugment,
        interpolation="bicubic",
        mean=RECIPE.mean,
        std=RECIPE.std,
        num_workers=1,
        device=torch.device("cpu"),
    )
    while True:
        # The worker's batches, before the prefetcher's arithmetic, which a device would do.
        yield from loader.loader


def torchvision_loader(root: Path) -> Batches:
    """webdataset with torchvision on tensors: RandAugment always fires and is bilinear, another recipe."""
    import torch
    import webdataset
    from torch.utils.data import DataLoader
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.RandomResizedCrop(224, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(2, 9, interpolation=v2.InterpolationMode.BILINEAR),
        ]
    )

    def view(sample: tuple[bytes, bytes]) -> tuple[torch.Tensor, int]:
        data = torch.frombuffer(bytearray(sample[0]), dtype=torch.uint8)
        return transform(decode_image(data, ImageReadMode.RGB)), int(sample[1])

    urls = sorted(str(path) for path in root.glob("*-train-*.tar"))
    dataset = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(1000)
    dataset = dataset.to_tuple("jpg", "cls").map(view).batched(BATCH, partial=False).repeat()
    yield from DataLoader(dataset, batch_size=None, num_workers=1)


def own_loader(manifest: Manifest, repeats: int) -> Batches:
    sampling = Sampling(global_batch=BATCH, repeats=repeats)
    with TrainLoader(manifest, sampling, RECIPE, loading=Loading(workers=1)) as loader:
        while True:
            yield from loader


def measure(make: Callable[[], Batches]) -> tuple[float, float, list[dict[str, float]]]:
    """Views per processor second and per wall second, and the workers' memory before and after."""
    os.sched_setaffinity(0, {CORES[-1]})
    batches = make()
    next(batches)  # workers have started on the core that they inherit
    os.sched_setaffinity(0, {CORES[0]})
    with closing(batches):  # type: ignore[type-var]
        for _ in range(WARM):
            next(batches)
        workers = descendants()
        before = [memory(worker) for worker in workers]
        begun, busy = time.perf_counter(), processor_time(workers)
        for _ in range(TIMED):
            next(batches)
        wall, busy = time.perf_counter() - begun, processor_time(workers) - busy
        after = [memory(worker) for worker in workers]
    largest = max(range(len(workers)), key=lambda index: after[index]["busy"])
    return TIMED * BATCH / busy, TIMED * BATCH / wall, [before[largest], after[largest]]


CORES = sorted(os.sched_getaffinity(0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "loading-benchmark")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    manifest = make_set(arguments.data)
    pixels = (manifest.width.astype(np.int64) * manifest.height).mean()
    size = f"{manifest.length.mean() / 1e3:.1f} kB and {pixels / 1e6:.3f} Mpx"
    print(f"{len(manifest)} images, mean {size}; {arguments.rounds} rounds\n")
    loaders: dict[str, Callable[[], Batches]] = {
        "timm, DeiT's recipe": lambda: timm_loader(manifest.root),
        "webdataset + torchvision v2": lambda: torchvision_loader(manifest.root),
        "ours": lambda: own_loader(manifest, 1),
        "ours, 3 repeats": lambda: own_loader(manifest, 3),
    }
    rounds = [{name: measure(make) for name, make in loaders.items()} for _ in range(arguments.rounds)]
    print_speed(rounds)
    print_memory(rounds[-1])
    print()
    print_overhead(manifest)
    print_resuming()


def print_speed(rounds: list[dict[str, Any]]) -> None:
    print("| loader | views / processor second | ratio | views / second | ratio |\n|---|---|---|---|---|")
    base = [statistics.median(one["timm, DeiT's recipe"][kind] for one in rounds) for kind in (0, 1)]
    for name in rounds[0]:
        busy, wall = (statistics.median(one[name][kind] for one in rounds) for kind in (0, 1))
        print(f"| {name} | {busy:.0f} | {busy / base[0]:.2f} | {wall:.0f} | {wall / base[1]:.2f} |")


def print_memory(measured: dict[str, Any]) -> None:
    print("\n| worker of | resident MB | shared batches | private | resident later |\n|---|---|---|---|---|")
    for name, (_, _, (before, after)) in measured.items():
        print(
            f"| {name} | {before['Rss']:.0f} | {before['Pss_Shmem']:.0f} | {before['Private']:.0f} | "
            f"{after['Rss']:.0f} |"
        )


if __name__ == "__main__":
    main()
