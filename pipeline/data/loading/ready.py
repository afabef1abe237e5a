"""Micro-batches of images and soft targets on the device, made ready beside the step that it computes."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.data.augmentation.batch import finish_train
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.loading.batch import MicroBatch, TrainingBatches
from pipeline.data.randomness import Purpose, words


@dataclass(frozen=True, eq=False)
class ReadyBatch:
    loaded: MicroBatch
    images: Tensor  # float32 [B, C, H, W]
    targets: Tensor  # float32 [B, K]
    keys: np.ndarray  # int64 [B], decide which paths are dropped
    wait: float  # seconds until it was loaded


def ready(
    loader: TrainingBatches, aug: Augmentation, classes: int, seed: int, device: torch.device
) -> Iterator[ReadyBatch]:
    """A GPU copies and finishes a batch on a stream of its own, from pinned memory: while the step before is
    still computed there, and nobody waits."""
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    batches = iter(loader)
    while True:
        began = time.monotonic()
        batch = next(batches, None)
        wait = time.monotonic() - began
        if batch is None:
            return
        with torch.cuda.stream(stream) if stream else nullcontext():
            images, targets = finish_train(
                batch.images.pin_memory() if stream else batch.images,
                batch.labels,
                aug,
                classes,
                device,
                seed=seed,
                epoch=batch.epoch,
                step=batch.step,
                position=batch.position,
                slot=batch.position % loader.sampling.global_batch,
            )
        if stream:
            computing = torch.cuda.current_stream(device)
            computing.wait_stream(stream)
            for tensor in (images, targets):
                tensor.record_stream(computing)  # its memory is not used again before that is done with it
        keys = words(seed, Purpose.PATHS, batch.epoch, batch.position, 1)[:, 0].astype(np.int64)
        yield ReadyBatch(batch, images, targets, keys, wait)
