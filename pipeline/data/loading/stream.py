"""Reading through the webdataset library (data.reader=webdataset), for shards that cannot be indexed.

Each shard is read from its beginning to its end. What that costs PROMISES says; and bytes are not checked
against hashes. webdataset ends a shard at a damaged tar header without an error; the number of samples shows
that. An image gets the same draws and pixels as from the indexed reader.
"""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.loading.batch import MicroBatch, TrainingBatches
from pipeline.data.loading.sampler import Sampling
from pipeline.data.loading.stream_worker import Stream, StreamWorker, begin_worker, dataset_of
from pipeline.data.shards.manifest import Manifest, manifest_path
from pipeline.data.shards.timm_info import read_info
from pipeline.errors import UserError, WorkFailed
from tnt.untrusted.reading import other_than

log = logging.getLogger(__name__)
PROMISES = (
    "data.reader=webdataset: shards are streamed. Every rank gets the same number of batches, but which "
    "samples stand in them depends on the number of ranks and workers, some may be repeated or left out in "
    "an epoch, and a run can go on only from the beginning of an epoch. data.reader=indexed has none of "
    "these limits"
)


def stream_of(root: Path | str, split: str) -> Stream:
    """A directory's split: counts come from its manifest, or from the `_info.json` of timm's reader."""
    root = Path(root)
    if manifest_path(root, split).exists():
        manifest = Manifest.read(root, split)
        urls = tuple(str(manifest.path(index)) for index in range(len(manifest.shards)))
        return Stream(urls, tuple(shard.samples for shard in manifest.shards))
    splits = read_info(root).get("splits")
    if not isinstance(splits, dict) or split not in splits:
        raise UserError(
            f"{root} has neither {split}.manifest.json nor a split {split!r} in _info.json; index them: "
            f"`python pipeline/shards.py index {root}`"
        )
    info = splits[split]
    if problem := other_than(info, {"filenames": [str], "shard_lengths": [int]}, f"splits.{split}"):
        raise WorkFailed(f"{root / '_info.json'}: {problem}")
    return Stream(tuple(str(root / name) for name in info["filenames"]), tuple(info["shard_lengths"]))


class StreamLoader(TrainingBatches):
    """Training batches from a stream: they can be resumed at the beginning of an epoch only."""

    resumes_within_epoch = False
    remarks = ("data.reader=webdataset: damaged samples are replaced, not counted",)

    def __init__(
        self,
        stream: Stream,
        sampling: Sampling,
        augmentation: Augmentation,
        *,
        rank: int = 0,
        world: int = 1,
        micro_batch: int | None = None,
        workers: int = 4,
        timeout: float = 60.0,
    ) -> None:
        super().__init__(stream.samples, sampling, rank, world, micro_batch)
        self.stream, self.augmentation, self.workers, self.timeout = stream, augmentation, workers, timeout
        if not self.steps_per_epoch:
            raise UserError(
                f"{stream.samples} samples are fewer than one global batch of {sampling.global_batch}"
            )
        if len(stream.urls) < world * max(1, workers):
            fitting = len(stream.urls) // world
            raise UserError(
                f"{len(stream.urls)} shards cannot feed {world} ranks with {workers} workers each: a worker "
                f"needs a shard of its own; set workers to {fitting}, or data.reader=indexed"
            )
        if rank == 0:
            log.warning(PROMISES)

    def __iter__(self) -> Iterator[MicroBatch]:
        if self.step:
            raise _mid_epoch(self.epoch, self.step)
        return self._counted(self._streamed(self.epoch))

    def _streamed(self, epoch: int) -> Iterator[MicroBatch]:
        import torch
        from torch.utils.data import DataLoader

        loader = DataLoader(
            dataset_of(StreamWorker(copy.copy(self), self.stream, self.augmentation)),
            batch_size=None,
            num_workers=self.workers,
            worker_init_fn=begin_worker,
            timeout=self.timeout if self.workers else 0,
        )
        for number, (images, labels, position) in enumerate(loader):
            step, micro = divmod(number, self.micro_batches)
            yield MicroBatch(
                images=torch.as_tensor(images),
                labels=torch.as_tensor(labels),
                sample=np.full(len(labels), -1),
                position=np.asarray(position),
                epoch=epoch,
                step=step,
                last=micro == self.micro_batches - 1,
                fresh={},
            )

    def state(self) -> dict[str, Any]:
        return {
            "format": 1,
            "reader": "webdataset",
            "epoch": self.epoch,
            "step": self.step,
            "shards": self.stream.identity,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        if state.get("reader") != "webdataset":
            raise UserError(
                "this state is data.reader=indexed's: go on with that reader, or start another run"
            )
        if state["shards"] != self.stream.identity:
            raise UserError("since this state was saved the shards changed: other names or other counts")
        if state["step"]:
            raise _mid_epoch(state["epoch"], state["step"])
        self.epoch = state["epoch"]


def _mid_epoch(epoch: int, step: int) -> UserError:
    return UserError(
        f"data.reader=webdataset cannot go on within an epoch (epoch {epoch}, step {step}): take the "
        f"checkpoint of an epoch's end, or use data.reader=indexed"
    )
