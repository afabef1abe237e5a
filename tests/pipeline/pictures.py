"""Pictures for tests: smooth noise, which compresses as photographs do, in every form that sets hold."""

import io
import struct

import numpy as np
from PIL import Image


def picture(width, height, seed=0, mode="RGB"):
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (max(height // 6, 2), max(width // 6, 2), 3)).astype(np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    return image if mode == "RGB" else image.convert(mode)


def encoded(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def jpeg(width=60, height=40, seed=0, mode="RGB", **options):
    return encoded(picture(width, height, seed, mode), "JPEG", **({"quality": 85} | options))


def png(width=60, height=40, seed=0, mode="RGB"):
    return encoded(picture(width, height, seed, mode), "PNG")


def turned(payload, orientation=6, order="<"):
    """The JPEG with an EXIF orientation."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    body = b"Exif\0\0" + mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4)
    return payload[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + payload[2:]


def with_stray_bytes(payload):
    """A JPEG that decoders warn of but read, as ImageNet and Pets have some."""
    assert payload.endswith(b"\xff\xd9")
    return payload[:-2] + bytes(200) + b"\xff\xd9"


def pixels(payload):
    return np.asarray(Image.open(io.BytesIO(payload)).convert("RGB"))
