"""Tasks and how they are done: views of a run of images, written into their places of a batch.

A task holds everything that is to be known of its images, so that whoever renders it keeps no manifest and no
state: the pixels follow from the task alone.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.data.augmentation.draws import ViewDraws, draw_views
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.images.decode import DecodeError, ImageKind, StoredImage
from pipeline.data.shards.manifest import Manifest
from pipeline.data.shards.reader import PAUSES, ShardFiles, Unreadable

HEAD = struct.Struct("5q")  # of a task's message: all of its fields but the images


class TaskImage(NamedTuple):
    """What is to be known of one image of a task."""

    xxh3: int
    offset: int
    sample: int
    shard: int
    length: int
    width: int
    height: int
    kind: int  # ImageKind
    views: int  # how many of the task's views show it


IMAGE = np.dtype(
    list(zip(TaskImage._fields, ("u8", "i8", "i8", "i4", "i4", "i4", "i4", "i4", "i4"), strict=True))
)


class Task(NamedTuple):
    """Consecutive views of one batch: their places and positions are the first and those that follow it."""

    ticket: int  # the batch
    buffer: int  # in which the batch is assembled
    epoch: int
    place: int  # index in the batch
    position: int  # names the view in the epoch
    images: np.ndarray  # IMAGE, one for each run of views that show the same

    def packed(self) -> bytes:
        """As a message; pickling would take six times as long."""
        return HEAD.pack(*self[:5]) + self.images.tobytes()

    @classmethod
    def unpacked(cls, message: bytes) -> "Task":
        return cls._make((*HEAD.unpack_from(message), np.frombuffer(message, IMAGE, offset=HEAD.size)))


class Failure(NamedTuple):
    """An image that could not be rendered, and the places that wait for another."""

    sample: int
    reason: str
    places: range


class Rendered(NamedTuple):
    """A task that is done: images that could not be used, or the stack trace of an error."""

    ticket: int
    worker: int
    failures: Sequence[Failure] = ()
    fault: str = ""


@dataclass(frozen=True)
class Rendering:
    """What is the same for all tasks of a loader."""

    root: Path
    shards: tuple[str, ...]
    augmentation: Augmentation
    seed: int = 0
    evaluation: bool = False
    pauses: Sequence[float] = PAUSES

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.augmentation.image_size, self.augmentation.image_size, 3


def describe(manifest: Manifest, sample: np.ndarray) -> np.ndarray:
    """IMAGE: what is to be known of these samples; equal neighbours are one image, to be decoded once."""
    first, views = runs(sample)
    distinct = sample[first]
    images = np.empty(len(distinct), IMAGE)
    images["sample"], images["views"] = distinct, views
    for name in ("xxh3", "offset", "shard", "length", "width", "height", "kind"):
        images[name] = getattr(manifest, name)[distinct]
    return images


def runs(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of equal neighbours begins, and its length; numpy.diff would take ten times as long."""
    edge = np.ones(len(sample) + 1, bool)
    np.not_equal(sample[1:], sample[:-1], out=edge[1:-1])
    edges = np.flatnonzero(edge)
    return edges[:-1], edges[1:] - edges[:-1]


class Renderer:
    def __init__(self, rendering: Rendering) -> None:
        self._how = rendering
        self._files = ShardFiles(rendering.root, rendering.shards, rendering.pauses)

    def render(self, task: Task, batch: np.ndarray, began: Callable[[int], None]) -> list[Failure]:
        """Fill the task's places of `batch`; `began` is told each sample before it is touched."""
        how, failures = self._how, list[Failure]()
        images = [TaskImage(*image) for image in task.images.tolist()]
        for image in images:
            began(image.sample)  # opening a file may hang as reading it may
            self._files.announce(image.shard, image.offset, image.length)
        draws, views = None, task.images["views"]
        if not how.evaluation:
            position = task.position + np.arange(views.sum())
            edges = (np.repeat(task.images[name], views) for name in ("width", "height"))
            draws = draw_views(how.augmentation, how.seed, task.epoch, position, *edges)
        view = 0
        for image in images:
            shown = range(view, view + image.views)
            places = range(task.place + view, task.place + view + image.views)
            view += image.views
            began(image.sample)
            try:
                self._show(image, draws, shown, [batch[place] for place in places])
            except (Unreadable, DecodeError) as error:
                failures.append(Failure(image.sample, str(error), places))
        return failures

    def _show(
        self, image: TaskImage, draws: ViewDraws | None, shown: range, out: Sequence[np.ndarray]
    ) -> None:
        from pipeline.data.augmentation.views import render_evaluation, render_views

        payload = self._files.read(image.shard, image.offset, image.length, image.xxh3)
        stored = StoredImage(payload, image.kind, image.width, image.height)
        if draws is None:
            for slot in out:
                render_evaluation(stored, slot, self._how.augmentation)
        else:
            render_views(stored, draws, shown, out, self._how.augmentation)

    def close(self) -> None:
        self._files.close()


def render_nothing(how: Rendering) -> None:
    """Render one small image to nowhere: whatever is imported or set up on first use is in place after it."""
    import simplejpeg

    from pipeline.data.augmentation.views import render_evaluation, render_views

    edge = np.array([16])
    payload = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    image = StoredImage(payload, int(ImageKind.JPEG), 16, 16)
    nowhere = np.empty(how.image_shape, np.uint8)
    render_evaluation(image, nowhere, how.augmentation)
    draws = draw_views(how.augmentation, how.seed, 0, np.array([0]), edge, edge)
    render_views(image, draws, [0], [nowhere], how.augmentation)
