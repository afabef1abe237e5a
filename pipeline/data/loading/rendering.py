"""Tasks and how they are done: views of a run of images, written into their places of a batch.

A task holds everything that is to be known of its images, so that whoever renders it keeps no manifest and no
state: the pixels follow from the task alone.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.shards.manifest import ImageKind, Manifest
from pipeline.data.shards.reader import PAUSES, ShardFiles, Unreadable

if TYPE_CHECKING:
    from pipeline.data.augmentation.draws import ViewDraws

MOST_BANDS = 8000  # offsets of one image; more would not fit into a message
IMAGE = np.dtype(
    [
        ("xxh3", "u8"),
        ("offset", "i8"),
        ("sample", "i8"),
        ("shard", "i4"),
        ("length", "i4"),
        ("width", "i4"),
        ("height", "i4"),
        ("kind", "i4"),
        ("bands", "i4"),  # how many of the task's band offsets are this image's
        ("views", "i4"),  # how many of the task's views show it
    ]
)


BAND, PLACE, POSITION = np.dtype("u4"), np.dtype("i4"), np.dtype("i8")
HEAD = struct.Struct("6q")  # of a task's message: ticket, slot, epoch; how many images, bands, views


class Task(NamedTuple):
    """Consecutive images of one batch, each with the views that show it."""

    ticket: int  # the batch
    slot: int  # the buffer in which the batch is assembled
    epoch: int
    images: np.ndarray  # IMAGE [images]
    bands: np.ndarray  # uint32, image after image
    place: np.ndarray  # int32 [views], index in the batch
    position: np.ndarray  # int64 [views], names the view in the epoch

    def packed(self) -> bytes:
        """As a message; pickling the arrays would take six times as long."""
        head = HEAD.pack(*self[:3], len(self.images), len(self.bands), len(self.place))
        return b"".join((head, *(array.tobytes() for array in self[3:])))

    @classmethod
    def unpacked(cls, message: bytes) -> "Task":
        *named, images, bands, views = HEAD.unpack_from(message)
        arrays, start = [], HEAD.size
        for kind, count in ((IMAGE, images), (BAND, bands), (PLACE, views), (POSITION, views)):
            arrays.append(np.frombuffer(message, kind, count, start))
            start += count * kind.itemsize
        return cls(*named, *arrays)


class Failure(NamedTuple):
    """An image that could not be rendered, and the places that wait for another."""

    sample: int
    reason: str
    places: tuple[int, ...]


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


def describe(
    manifest: Manifest,
    ticket: int,
    slot: int,
    epoch: int,
    sample: np.ndarray,
    place: np.ndarray,
    position: np.ndarray,
) -> Task:
    """The task that renders `sample[i]` into `place[i]`; equal neighbours are decoded once."""
    first, views = runs(sample)
    distinct = sample[first]
    images = np.empty(len(distinct), IMAGE)
    images["sample"], images["views"] = distinct, views
    for name in ("xxh3", "offset", "shard", "length", "width", "height", "kind"):
        images[name] = getattr(manifest, name)[distinct]
    images["bands"] = bands_of(manifest, distinct)
    bands = np.zeros(0, BAND)
    if images["bands"].any():
        bands = np.concatenate([manifest.rows(one) for one in distinct[images["bands"] > 0].tolist()])
    return Task(
        ticket, slot, epoch, images, bands, place.astype(PLACE), position.astype(POSITION, copy=False)
    )


def runs(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of equal neighbours begins, and its length; numpy.diff would take ten times as long."""
    edge = np.ones(len(sample) + 1, bool)
    np.not_equal(sample[1:], sample[:-1], out=edge[1:-1])
    edges = np.flatnonzero(edge)
    return edges[:-1], edges[1:] - edges[:-1]


def bands_of(manifest: Manifest, sample: np.ndarray) -> np.ndarray:
    """How many band offsets a task says of each sample: none of huge images, which are then decoded whole."""
    count = manifest.row_start[sample + 1] - manifest.row_start[sample]
    return np.where(count > MOST_BANDS, 0, count)


class Renderer:
    def __init__(self, rendering: Rendering) -> None:
        self._how = rendering
        self._files = ShardFiles(rendering.root, rendering.shards, rendering.pauses)

    def render(self, task: Task, batch: np.ndarray, began: Callable[[int], None]) -> list[Failure]:
        """Fill the task's places of `batch`; `began` is told each sample before it is touched."""
        from pipeline.data.augmentation.draws import draw_views
        from pipeline.data.images.decode import DecodeError

        how, failures = self._how, []
        images = task.images.tolist()
        for image in images:
            began(image[2])  # opening a file may hang as reading it may
            self._files.announce(*_where(image))
        draws = None
        if not how.evaluation:
            edges = (np.repeat(task.images[name], task.images["views"]) for name in ("width", "height"))
            draws = draw_views(how.augmentation, how.seed, task.epoch, task.position, *edges)
        places = task.place.tolist()
        view = band = 0
        for image in images:
            sample, bands, views = image[2], image[8], image[9]
            shown = range(view, view + views)
            out = [batch[places[index]] for index in shown]
            began(sample)
            try:
                self._show(image, task.bands[band : band + bands], draws, shown, out)
            except (Unreadable, DecodeError) as error:
                failures.append(Failure(sample, str(error), tuple(places[view : view + views])))
            view, band = view + views, band + bands
        return failures

    def _show(
        self,
        image: tuple,
        bands: np.ndarray,
        draws: "ViewDraws | None",
        shown: range,
        out: Sequence[np.ndarray],
    ) -> None:
        from pipeline.data.augmentation.views import render_evaluation, render_views
        from pipeline.data.images.decode import StoredImage

        *_, width, height, kind, _, _ = image
        stored = StoredImage(self._files.read(*_where(image), image[0]), kind, width, height, bands)
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

    from pipeline.data.augmentation.draws import draw_views
    from pipeline.data.augmentation.views import render_evaluation, render_views
    from pipeline.data.images.decode import StoredImage

    edge = np.array([16])
    payload = simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))
    image = StoredImage(payload, int(ImageKind.JPEG), 16, 16, np.zeros(0, np.uint32))
    nowhere = np.empty(how.image_shape, np.uint8)
    render_evaluation(image, nowhere, how.augmentation)
    draws = draw_views(how.augmentation, how.seed, 0, np.array([0]), edge, edge)
    render_views(image, draws, [0], [nowhere], how.augmentation)


def _where(image: tuple) -> tuple[int, int, int]:
    """Shard, offset, length."""
    return image[3], image[1], image[4]
