"""Small packed sets for tests: the real digits in real shards."""

import hashlib
import shutil

import numpy as np

from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.digits import digits
from pipeline.data.shards.manifest import Manifest

SMALL = Augmentation(image_size=16)


def pack_digits(out, samples_per_shard=180):
    """1437 training samples in 8 shards, 360 of validation in 2."""
    make(digits(size=24), out, Packing(samples_per_shard=samples_per_shard, workers=1))
    return out


def copied(manifest, out):
    """The same set elsewhere, to be damaged."""
    shutil.copytree(manifest.root, out)
    return Manifest.read(out, manifest.split)


def overwrite(manifest, sample):
    """Change one byte in the middle of a sample's payload."""
    with open(manifest.path(manifest.shard[sample]), "r+b") as file:
        file.seek(int(manifest.offset[sample] + manifest.length[sample] // 2))
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([255 - byte]))


def digests(loader, parts=None):
    """{(epoch, step): {position: (key, hash of the pixels)}} of what is left of the epoch."""
    found = {} if parts is None else parts
    for batch in loader:
        step = found.setdefault((batch.epoch, batch.step), {})
        for position, sample, image in zip(batch.position, batch.sample, batch.images.numpy(), strict=True):
            key = loader.manifest.key[sample] if sample >= 0 else b"padding"
            step[int(position)] = (key, hashlib.sha256(np.ascontiguousarray(image)).hexdigest())
    return found
