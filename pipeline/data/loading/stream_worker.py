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
from pipeline.data.images.decode import DecodeError, ImageKind, StoredImage, identify
from pipeline.data.loading.batch import TrainingBatches
from pipeline.data.loading.sampler import STREAMED, permutation
from pipeline.data.loading.worker import IGNORED
from pipeline.errors import UserError, WorkFailed, unknown_name

log = logging.getLogger(__name__)
Sample = tuple[StoredImage, int, str]  # image, label, name
# Opened without a shell. pipe: runs a command, and is refused by us and by webdataset's secure mode.
SCHEMES = ("", "file", "http", "https", "gs", "hf")
IMAGES = ("jpg", "jpeg", "png", "JPEG")
SHUFFLED = 1000  # samples (as files, ImageNet's 100 KB each) that a worker holds to shuffle
LIMIT = 1e-4  # share of the samples that may be no images


@dataclass(frozen=True)
class Stream:
    """Shards by name, and how much each of them holds."""

    urls: tuple[str, ...]
    counts: tuple[int, ...]  # samples in each shard

    def __post_init__(self) -> None:
        for url in self.urls:
            scheme = urlparse(url).scheme
            if scheme not in SCHEMES:
                raise unknown_name("kind of shard URL", scheme, [name for name in SCHEMES if name])
        if not self.urls:
            raise UserError("there are no shards to stream")

    @property
    def samples(self) -> int:
        return sum(self.counts)

    @property
    def identity(self) -> str:
        """A hash of the shards' names, wherever they lie, and of how much they hold."""
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

    batches: TrainingBatches  # of its rank
    stream: Stream
    augmentation: Augmentation
    damaged: int = 0

    def __call__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        from torch.utils.data import get_worker_info

        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        images = self._images(worker, workers)
        # The repeats of an image that do not fit into one batch stand in the worker's next.
        repeats = self.batches.sampling.repeats
        views = itertools.chain.from_iterable(itertools.repeat(one, repeats) for one in images)
        for number in range(worker, self.batches.steps_per_epoch * self.batches.micro_batches, workers):
            yield self._rendered(number, list(itertools.islice(views, self.batches.micro_batch)), images)

    def _rendered(
        self, number: int, shown: list[Sample], more: Iterator[Sample]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        batches, size = self.batches, self.augmentation.image_size
        position = batches.positions(*divmod(number, batches.micro_batches))
        pixels = np.empty((len(position), size, size, 3), np.uint8)
        labels = np.empty(len(position), np.int64)
        place = 0
        for _, group in itertools.groupby(shown, key=id):
            sample, *others = group
            views = slice(place, place := place + 1 + len(others))
            while not self._render(sample, position[views], pixels[views]):
                sample = next(more)
            labels[views] = sample[1]
        return pixels, labels, position

    def _render(self, sample: Sample, position: np.ndarray, pixels: np.ndarray) -> bool:
        """Whether it could be decoded."""
        from pipeline.data.augmentation.views import render_views

        image, _, name = sample
        seed, epoch = self.batches.sampling.seed, self.batches.epoch
        edges = (np.full(len(position), edge) for edge in (image.width, image.height))
        draws = draw_views(self.augmentation, seed, epoch, position, *edges)
        # Pillow only warns of stray bytes.
        for kind in dict.fromkeys((image.kind, int(ImageKind.OTHER))):
            try:
                stored = replace(image, kind=kind)
                render_views(stored, draws, range(len(position)), list(pixels), self.augmentation)
                return True
            except DecodeError as error:
                reason = error
        log.warning("%s is not used: %s", name, reason)
        self.damaged += 1
        allowed = max(1, int(LIMIT * self.stream.samples))
        if self.damaged > allowed:
            raise WorkFailed(
                f"{name}: {reason}; a worker met {self.damaged} such samples, the limit is {allowed}"
            )
        return False

    def _images(self, worker: int, workers: int) -> Iterator[Sample]:
        """The samples of the worker's shards, over and over."""
        from webdataset import shuffle

        batches, seed = self.batches, self.batches.sampling.seed
        shards = permutation(seed, batches.epoch, STREAMED, len(self.stream.urls))
        own = shards[batches.rank :: batches.world][worker::workers].tolist()
        draw = Random(f"{seed} {batches.epoch} {batches.rank} {worker}")
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
        if found != (known := self.stream.counts[index]):
            raise WorkFailed(
                f"{url} gave {found} samples where {known} are recorded: it is damaged, though webdataset "
                "saw no error"
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
        image = identify(payload)
    except DecodeError:
        image = StoredImage(payload, ImageKind.OTHER, 1, 1)  # decoding refuses it by name
    return image, int(sample["cls"]), name
