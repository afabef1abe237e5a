"""scikit-learn's two photographs, as pixels and as stored images."""

import functools
import io
import subprocess

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from pipeline.data.images.decode import StoredImage
from pipeline.data.images.jpeg import read_frame, restart_interval, restart_rows
from pipeline.data.shards.manifest import ImageKind

NAMES = ("china.jpg", "flower.jpg")
NO_ROWS = np.zeros(0, np.uint32)


@functools.cache
def photograph(name, width=640, height=427):
    image = Image.fromarray(load_sample_image(name))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def pixels(name, width=640, height=427):
    return np.array(photograph(name, width, height))


def stored_file(image, form="JPEG", kind=ImageKind.JPEG, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return StoredImage(file.getvalue(), kind, image.width, image.height, NO_ROWS)


@functools.cache
def stored(name="china.jpg", width=500, height=375, subsampling=2):
    return stored_file(photograph(name, width, height), quality=92, subsampling=subsampling)


def with_restart_rows(image, interval=None):
    """The same image with restart markers as repacking writes them, or after every so many MCUs."""
    interval = interval or restart_interval(read_frame(image.payload))
    command = ["jpegtran", "-optimize", "-restart", f"{interval}B"]
    payload = subprocess.run(command, input=image.payload, capture_output=True, check=True).stdout
    return StoredImage(payload, image.kind, image.width, image.height, restart_rows(payload))
