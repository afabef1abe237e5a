"""From image files to the model's input, pixel for pixel as the networks of the paper are evaluated.

The short side is resized to size/0.9 (bicubic), the centre cut out, mean and deviation are 0.5; as in timm, a
camera's rotation mark (EXIF) is ignored. B images of height and width S.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from tnt.untrusted.pictures import MOST_BYTES, endless, excess
from tnt.untrusted.reading import BadFile, read_bytes

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

CROP = 0.9
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
RGB = 3
MODES = {1: "L", RGB: "RGB"}  # by the model's channels
LONGEST = 20  # sides: a picture longer than this many short sides is refused, resizing would need its memory


class ImageError(ValueError):
    """An image that cannot be used; the message names it and says why."""


class Item(NamedTuple):
    """An image not yet opened: a file, or the bytes of one out of a shard."""

    name: str
    content: Path | bytes
    label: int | None = None


@dataclass(frozen=True)
class ImageBatch:
    items: list[Item]
    errors: list[str | None]  # for each item: why it could not be read
    images: Tensor  # of the others, in order: B, C, S, S


def find_images(sources: Iterable[str | Path]) -> list[Item]:
    """The images behind files and folders; a folder's, and its subfolders', in the order of their names."""
    found: list[Item] = []
    for source in map(Path, sources):
        if not source.is_dir():
            found.append(Item(str(source), source))
            continue
        inside = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not inside:
            raise ValueError(
                f"no images under {source}; they are known by their names: {', '.join(SUFFIXES)}"
            )
        found += [Item(str(path), path) for path in inside]
    return found


def open_image(item: Item, channels: int = 3, drop_alpha: bool = False) -> Image.Image:
    """Decoded and in the model's colours; transparency is refused, for no training image has it."""
    from PIL import Image

    if channels not in MODES:
        raise ValueError(
            f"this model takes images of {channels} channels, image files give 1 or 3; "
            "call it from Python with tensors of your own"
        )
    payload = _payload(item)
    try:
        Image.MAX_IMAGE_PIXELS = None  # `excess` is asked instead
        with Image.open(io.BytesIO(payload)) as image:
            if problem := excess(payload, *image.size):
                raise ImageError(f"{item.name}: {problem}; or make it smaller")
            image.load()
            if not drop_alpha and _transparent(image):
                raise ImageError(
                    f"{item.name}: {len(image.getbands())} channels ({image.mode}) with transparency; "
                    "put it on a background, or drop the alpha channel (--drop-alpha)"
                )
            if max(image.size) > LONGEST * min(image.size):
                raise ImageError(f"{item.name}: {image.width}×{image.height} pixels are too long; cut it")
            return image.convert(MODES[channels])
    except ImageError:
        raise
    except Exception as error:  # a decoder that is fed garbage may raise anything
        # Pillow's own sentence holds the path, or the address of a buffer.
        damage = "no image file" if "identify" in str(error) else f"damaged ({error or type(error).__name__})"
        raise ImageError(f"{item.name}: {damage}; replace it or leave it out") from error


def _payload(item: Item) -> bytes:
    if isinstance(item.content, bytes):
        payload = item.content
    else:
        try:
            payload = read_bytes(item.content, MOST_BYTES)
        except FileNotFoundError:
            raise ImageError(f"{item.name}: no such file") from None
        except BadFile as error:
            raise ImageError(str(error)) from None
    if endless(payload):
        raise ImageError(f"{item.name}: its header does not end; replace it or leave it out")
    return payload


def picture_of(pixels: np.ndarray) -> Image.Image:
    """An array of H, W, 3 bytes as an image."""
    from PIL import Image

    return Image.fromarray(pixels)


def _transparent(image: Image.Image) -> bool:
    """Whether dropping the alpha channel would show what the image hides."""
    if not image.has_transparency_data:
        return False
    low, _ = image.convert("RGBA").getchannel("A").getextrema()
    return int(low) < 255  # type: ignore[arg-type]


def centre(image: Image.Image, size: int, crop: float = CROP) -> Image.Image:
    """The short side resized to size/crop, then the centre size × size, with timm's rounding."""
    from PIL import Image

    short = math.floor(size / crop)
    width, height = image.size
    if width <= height:
        resized = (short, int(short * height / width))
    else:
        resized = (int(short * width / height), short)
    image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
    return image.crop((left, top, left + size, top + size))


def to_tensor(image: Image.Image) -> Tensor:
    """C, S, S in [-1, 1]"""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    channels = len(image.getbands())
    square = pixels.view(image.height, image.width, channels).permute(2, 0, 1)
    return (square.float() / 255 - 0.5) / 0.5


def load_image(path: str | Path, size: int, channels: int = 3, drop_alpha: bool = False) -> Tensor:
    """An image file as evaluation sees it: C, S, S."""
    return to_tensor(centre(open_image(Item(str(path), Path(path)), channels, drop_alpha), size))


def batches(
    items: Iterable[Item], size: int, batch_size: int, channels: int = 3, drop_alpha: bool = False
) -> Iterator[ImageBatch]:
    """Each `batch_size` items as a batch; images that cannot be read are left out and named in its errors.

    The next batch is decoded while the caller works on this one.
    """
    if batch_size < 1:
        raise ValueError(f"a batch of {batch_size} images; give 1 or more")

    def load(item: Item) -> Tensor | str:
        try:
            return to_tensor(centre(open_image(item, channels, drop_alpha), size))
        except ImageError as error:
            return str(error)

    remaining = iter(items)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:

        def start() -> list[tuple[Item, Future[Tensor | str]]]:
            return [(item, pool.submit(load, item)) for item in islice(remaining, batch_size)]

        coming = start()
        while coming:
            now, coming = coming, start()
            yield _gather([(item, loading.result()) for item, loading in now], channels, size)


def _gather(loaded: list[tuple[Item, Tensor | str]], channels: int, size: int) -> ImageBatch:
    images = [image for _, image in loaded if isinstance(image, Tensor)]
    return ImageBatch(
        items=[item for item, _ in loaded],
        errors=[image if isinstance(image, str) else None for _, image in loaded],
        images=torch.stack(images) if images else torch.empty(0, channels, size, size),
    )
