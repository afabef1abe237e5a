"""scikit-learn's two photographs, as pixels and as stored images."""

import functools
import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from pipeline.data.images.decode import ImageKind, StoredImage

NAMES = ("china.jpg", "flower.jpg")


@functools.cache
def photograph(name, width=640, height=427):
    image = Image.fromarray(load_sample_image(name))
    return image.resize((width, height), Image.Resampling.BICUBIC)


def pixels(name, width=640, height=427):
    return np.array(photograph(name, width, height))


def stored_file(image, form="JPEG", kind=ImageKind.JPEG, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return StoredImage(file.getvalue(), kind, image.width, image.height)


@functools.cache
def stored(name="china.jpg", width=500, height=375, subsampling=2):
    return stored_file(photograph(name, width, height), quality=92, subsampling=subsampling)
