"""A source becomes a set: shuffled once, cut into equal shards, each image proven readable."""

from pathlib import Path

from pipeline.data.images.inspection import DamagedImage, inspect_image
from pipeline.data.packing.build import Outcome, build
from pipeline.data.packing.fork_pool import Advance
from pipeline.data.packing.shard_plan import Packing, PlannedShard, plan_shards
from pipeline.data.packing.shard_rows import RowBook
from pipeline.data.packing.sources.source import Source
from pipeline.data.shards.manifest import ImageKind
from pipeline.data.shards.tar import ArchiveWriter

REPORT_EVERY = 16  # images


def make(source: Source, out: Path, packing: Packing) -> Outcome:
    def fill(planned: PlannedShard, archive: ArchiveWriter, book: RowBook, advance: Advance) -> None:
        for count, sample in enumerate(planned.samples.tolist(), 1):
            _add(source, planned.split, sample, archive, book)
            if count % REPORT_EVERY == 0:
                advance(REPORT_EVERY)
        advance(len(planned.samples) % REPORT_EVERY)

    return build(
        out,
        plan_shards(source, packing),
        source.classes,
        fill,
        what=f"packing {source.name}",
        workers=packing.workers,
        skip_damaged=packing.skip_damaged,
    )


def _add(source: Source, split: str, sample: int, archive: ArchiveWriter, book: RowBook) -> None:
    listing = source.splits[split]
    key, label = bytes(listing.key[sample]), int(listing.label[sample])
    payload = source.read(split, sample)
    try:
        image = inspect_image(payload)
    except DamagedImage as error:
        book.skipped[key.decode(errors="replace")] = str(error)
        return
    offset = archive.add(key + extension(image.kind), payload)
    archive.add(key + b".cls", b"%d" % label)
    book.add(key, label, offset, payload, image)


def extension(kind: ImageKind) -> bytes:
    """By content: webdataset's readers look for .jpg and .png, and decode by content themselves."""
    return b".png" if kind == ImageKind.PNG else b".jpg"
