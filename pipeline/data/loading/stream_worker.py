"""Micro-batches from streamed shards, in a worker process: webdataset's door for reading."""

import hashlib
import itertools
import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from urllib.parse import urlparse

import numpy as np

from pipeline.data.augmentation.draws import draw_views
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.images.decode import FAST, DecodeError, ImageKind, StoredImage, identify
from pipeline.data.loading.sampler import Sampling
from pipeline.data.loading.worker import IGNORED
from pipeline.data.randomness import Purpose, philox
from pipeline.errors import UserError, WorkFailed, unknown_name

log = logging.getLogger(__name__)
Sample = tuple[StoredImage, int, str]  # image, label, name
# Opened without a shell. pipe: runs a command, and is refused by us and by webdataset's secure mode.
SCHEMES = ("", "file", "http", "https", "gs", "hf")
IMAGES = ("jpg", "jpeg", "png", "JPEG")
SHUFFLED = 1000  # samples (as files, ImageNet's 100 KB each) that a worker holds to shuffle
LIMIT = 1e-4  # share of the samples that may be no images
SHARDS_STREAM = 3  # of Purpose.ORDER; the sampler uses those below


@dataclass(frozen=True)
class Stream:
    """Shards by name, and what is known of them."""

    urls: tuple[str, ...]
    counts: tuple[int, ...] | None  # samples in each shard
    samples: int  # in all of them

    def __post_init__(self) -> None:
        for url in self.urls:
            scheme = urlparse(url).scheme
            if scheme not in SCHEMES:
                raise unknown_name("kind of shard URL", scheme, [name for name in SCHEMES if name])
        if not self.urls:
            raise UserError("there are no shards to stream")

    @property
    def identity(self) -> str:
        """A hash of the shards' names, wherever they lie, and of what is known of them."""
        names = [url.rsplit("/", 1)[-1] for url in self.urls]
        return hashlib.sha256(repr((names, self.counts, self.samples)).encode()).hexdigest()


def dataset_of(worker: "StreamWorker") -> Any:
    """For torch's DataLoader."""
    # No pipe:, no rewriting of URLs. The variable is read when webdataset is imported, perhaps by another.
    os.environ["WDS_SECURE"] = "1"
    import webdataset

    webdataset.utils.enforce_security = True
    return webdataset.DataPipeline(worker)


def begin_worker(_: int) -> None:
    """Signals are the trainer's business; torch's own threads are off already, OpenCV's are not."""
    from pipeline.data.augmentation.randaugment import use_one_thread

    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    use_one_thread()


@dataclass
class StreamWorker:
    """A worker's micro-batches: every W-th of its rank's, from every W-th of its rank's shards."""

    stream: Stream
    sampling: Sampling
    augmentation: Augmentation
    rank: int
    world: int
    epoch: int
    batch: int  # views of a micro-batch
    batches: int  # micro-batches of this rank in an epoch
    damaged: int = 0

    def __call__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        from torch.utils.data import get_worker_info

        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        images = self._images(worker, workers)
        # The repeats of an image that do not fit into one batch stand in the worker's next.
        views = itertools.chain.from_iterable(itertools.repeat(one, self.sampling.repeats) for one in images)
        for number in range(worker, self.batches, workers):
            yield self._rendered(number, list(itertools.islice(views, self.batch)), images)

    def _rendered(
        self, number: int, shown: list[Sample], more: Iterator[Sample]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        from pipeline.data.augmentation.views import render_views

        share = self.sampling.global_batch // self.world
        step, place = divmod(number * self.batch, share)
        size = self.augmentation.image_size
        first = (step * self.world + self.rank) * share + place
        position = first + np.arange(self.batch)
        pixels = np.empty((self.batch, size, size, 3), np.uint8)
        labels = np.empty(self.batch, np.int64)
        place = 0
        for _, group in itertools.groupby(shown, key=id):
            (image, label, name), *others = group
            places = range(place, place + 1 + len(others))
            place = places.stop
            while True:
                edges = (np.full(len(places), edge) for edge in (image.width, image.height))
                draws = draw_views(
                    self.augmentation, self.sampling.seed, self.epoch, position[places.start : place], *edges
                )
                try:
                    slots = list(pixels[places.start : place])
                    render_views(image, draws, range(len(places)), slots, self.augmentation)
                    break
                except DecodeError as error:
                    if image.kind in FAST:  # stray bytes, of which Pillow only warns
                        image = replace(image, kind=int(ImageKind.OTHER))
                        continue
                    self._count_damaged(name, error)
                    image, label, name = next(more)
            labels[places.start : place] = label
        return pixels, labels, position

    def _count_damaged(self, name: str, error: Exception) -> None:
        log.warning("%s is not used: %s", name, error)
        self.damaged += 1
        allowed = max(1, int(LIMIT * self.stream.samples))
        if self.damaged > allowed:
            raise WorkFailed(
                f"{name}: {error}; a worker met {self.damaged} such samples, the limit is {allowed}"
            )

    def _images(self, worker: int, workers: int) -> Iterator[Sample]:
        """The samples of the worker's shards, over and over."""
        from webdataset import shuffle

        seed = self.sampling.seed
        words = philox(seed, Purpose.ORDER, self.epoch, high=SHARDS_STREAM).random_raw(len(self.stream.urls))
        own = np.argsort(words, kind="stable")[self.rank :: self.world][worker::workers].tolist()
        draw = Random(f"{seed} {self.epoch} {self.rank} {worker}")
        while True:
            once = itertools.chain.from_iterable(map(self._shard, own))
            yield from map(_stored, shuffle(SHUFFLED, initial=SHUFFLED // 2, rng=draw)(once))

    def _shard(self, index: int) -> Iterator[dict[str, Any]]:
        from webdataset import WebDataset

        url, found = self.stream.urls[index], 0
        opened = WebDataset(
            [url], shardshuffle=False, nodesplitter=None, workersplitter=None, empty_check=False, seed=0
        )
        for sample in opened:
            found += 1
            yield sample
        known = self.stream.counts[index] if self.stream.counts else None
        if found != known and (known is not None or not found):
            raise WorkFailed(
                f"{url} gave {found} samples where {'some' if known is None else known} are recorded: it is "
                f"damaged, though webdataset saw no error"
            )


def _stored(sample: dict[str, Any]) -> Sample:
    name = f"sample {sample['__key__']!r} of {sample['__url__']}"
    payload = next((sample[end] for end in IMAGES if end in sample), None)
    if payload is None or "cls" not in sample:
        held = ", ".join(sorted(key for key in sample if not key.startswith("__")))
        raise UserError(f"{name} has no image ({'|'.join(IMAGES)}) with a label (cls); it holds {held}")
    if not sample["cls"].strip().isdigit():
        raise UserError(f"{name} has the label {sample['cls'][:20]!r}; it must be a number of decimal digits")
    try:
        found = identify(payload)
        image = StoredImage(payload, found.kind, found.width, found.height)
    except DecodeError:
        image = StoredImage(payload, ImageKind.OTHER, 1, 1)  # decoding refuses it by name
    return image, int(sample["cls"]), name
