"""Describes a set, as text and as a contact sheet."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.images.decode import ImageKind, StoredImage, decode
from pipeline.data.packing.sources.source import encoded
from pipeline.data.shards.manifest import Manifest
from pipeline.data.shards.reader import ShardFiles
from pipeline.errors import UserError, counted, some
from pipeline.files import publish_bytes
from tnt.untrusted.showing import shown

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

KIND_NAMES = {
    ImageKind.JPEG: "JPEG",
    ImageKind.PROGRESSIVE: "progressive JPEG",
    ImageKind.CMYK: "CMYK JPEG",
    ImageKind.GREY: "grey JPEG",
    ImageKind.PNG: "PNG",
    ImageKind.OTHER: "read by Pillow",
}

SHEET_CLASSES, SHEET_COLUMNS = 12, 8
CELL, GAP, LABEL = 112, 6, 190  # pixels


def describe(manifests: list[Manifest]) -> str:
    return "\n\n".join(_describe_split(manifest) for manifest in manifests)


def _describe_split(manifest: Manifest) -> str:
    size = sum(shard.bytes for shard in manifest.shards)
    counts = np.bincount(manifest.label, minlength=len(manifest.classes))
    kinds = np.bincount(manifest.kind, minlength=len(ImageKind))
    per_shard = [shard.samples for shard in manifest.shards]
    shards = counted(len(manifest.shards), "shard")
    lines = [
        (manifest.split, f"{len(manifest):,} images in {shards}, {_amount(size)}"),
        ("classes", f"{len(manifest.classes):,}: {some(manifest.classes, most=8)}"),
        ("per class", f"{_extreme(manifest, counts, 'min')} to {_extreme(manifest, counts, 'max')}"),
        ("per shard", f"{min(per_shard):,} to {max(per_shard):,} images"),
        ("images", ", ".join(f"{kinds[kind]:,} {KIND_NAMES[kind]}" for kind in ImageKind if kinds[kind])),
        ("width", _spread(manifest.width, "px")),
        ("height", _spread(manifest.height, "px")),
        ("file size", _spread(manifest.length, "bytes")),
        ("fingerprint", manifest.fingerprint),
    ]
    return "\n".join(f"{shown(name):<14}{shown(value)}" for name, value in lines)


def _extreme(manifest: Manifest, counts: np.ndarray, which: str) -> str:
    label = int(counts.argmin() if which == "min" else counts.argmax())
    return f"{counts[label]:,} ({manifest.classes[label]})"


def _spread(values: np.ndarray, unit: str) -> str:
    low, middle, high = np.percentile(values, [0, 50, 100]).astype(int)
    return f"{low:,} to {high:,} {unit}, median {middle:,}"


def _amount(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def contact_sheet(manifests: list[Manifest], path: Path) -> None:
    """A PNG with a row of images for each of up to twelve classes of the first split, at even distances."""
    from PIL import Image, ImageDraw, ImageFont

    if path.suffix.lower() != ".png":
        raise UserError(f"the contact sheet {path} must be a .png file")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a directory")
    manifest = manifests[0]
    present = np.unique(manifest.label)
    chosen = present[np.unique(np.linspace(0, len(present) - 1, SHEET_CLASSES).round().astype(int))]
    step, top = CELL + GAP, 58
    width, height = LABEL + SHEET_COLUMNS * step + GAP, top + len(chosen) * step + GAP
    files = ShardFiles(manifest.root, [shard.name for shard in manifest.shards], pauses=())
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(size=20), ImageFont.load_default(size=14)
    summary = ", ".join(f"{len(one):,} {one.split}" for one in manifests)
    title = f"{manifest.root.resolve().name}: {summary}, {len(manifest.classes):,} classes"
    draw.text((GAP + 6, 8), title, "black", large)
    shown = f"shown: {manifest.split}, {len(chosen)} of {len(present):,} classes"
    draw.text((GAP + 6, 34), f"{shown}; fingerprint {manifest.fingerprint[:12]}", "dimgray", small)
    for line, label in enumerate(chosen.tolist()):
        y = top + line * step
        samples = np.flatnonzero(manifest.label == label)
        name = manifest.classes[label]
        while len(name) > 2 and draw.textlength(name, small) > LABEL - 3 * GAP:
            name = name[:-2].rstrip("… ") + "…"
        draw.text((GAP + 6, y + CELL // 2 - 18), name, "black", small)
        detail = f"label {label}, {len(samples):,} images"
        draw.text((GAP + 6, y + CELL // 2 + 2), detail, "dimgray", small)
        for column, sample in enumerate(samples[:SHEET_COLUMNS].tolist()):
            cell = _thumbnail(manifest, files, sample)
            x = LABEL + column * step + (CELL - cell.width) // 2
            sheet.paste(cell, (x, y + (CELL - cell.height) // 2))
    files.close()
    publish_bytes(path, encoded(sheet, "PNG"))


def _thumbnail(manifest: Manifest, files: ShardFiles, sample: int) -> "Picture":
    from PIL import Image

    where = [int(getattr(manifest, name)[sample]) for name in ("shard", "offset", "length", "xxh3")]
    kind, width, height = (int(getattr(manifest, name)[sample]) for name in ("kind", "width", "height"))
    image = Image.fromarray(decode(StoredImage(files.read(*where), kind, width, height)))
    scale = CELL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)
