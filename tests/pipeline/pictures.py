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


def plant(root, tree):
    """Files by their names below root."""
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def plant_pictures(root, per_class=10):
    """A class/image tree with every odd form in it."""
    odd = {
        "train/cat/progressive.jpg": jpeg(90, 70, 1, progressive=True),
        "train/cat/grey.JPEG": jpeg(90, 70, 2, mode="L"),
        "train/dog/cmyk.jpg": jpeg(90, 70, 3, mode="CMYK"),
        "train/dog/really_png.JPEG": png(90, 70, 4),
        "train/dog/turned.jpg": turned(jpeg(90, 70, 5)),
        "train/cat/one_pixel.jpg": jpeg(1, 1, 6),
        "train/dog/thin.jpg": jpeg(1, 90, 7),
        "train/dog/stray.jpg": with_stray_bytes(jpeg(90, 70, 8)),
    }
    tree = {
        f"{split}/{name}/{i:02d}.jpg": jpeg(100 + i, 80, 100 * c + i)
        for split, count in (("train", per_class), ("val", per_class // 2))
        for c, name in enumerate(("cat", "dog"))
        for i in range(count)
    }
    plant(root, tree | odd)
