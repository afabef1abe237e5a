"""Samples within a tar: members that share a key, as webdataset groups them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipeline.data.shards.tar import ArchiveDamage, Member, ReadAt

IMAGE_EXTENSIONS = ("jpg", "jpeg", "jpe", "png", "webp")
LABEL_EXTENSIONS = ("cls", "txt", "json")  # the first that is there counts


@dataclass(frozen=True)
class TarSample:
    key: bytes
    parts: dict[str, Member] = field(default_factory=dict)  # by lower-case extension

    def image(self, archive: str) -> Member:
        found = [self.parts[one] for one in IMAGE_EXTENSIONS if one in self.parts]
        if len(found) != 1:
            raise self.wrong(archive, f"has {len(found)} images ({', '.join(IMAGE_EXTENSIONS)}), not one")
        return found[0]

    def label(self, read: ReadAt, archive: str) -> int:
        """Decimal digits in .cls or .txt, or the field "label" of .json."""
        extension = next((one for one in LABEL_EXTENSIONS if one in self.parts), None)
        if extension is None:
            raise self.wrong(archive, f"has no label ({', '.join(LABEL_EXTENSIONS)})")
        member = self.parts[extension]
        content = read(member.offset, member.size)
        if extension == "json":
            try:
                value = json.loads(content).get("label")
            except (ValueError, AttributeError):
                value = None
            text = str(value) if type(value) is int else ""
        else:
            text = content.strip().decode("ascii", "replace")
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise self.wrong(archive, f"has no label of digits in its .{extension}")
        return int(text)

    def wrong(self, archive: str, what: str) -> ArchiveDamage:
        at = min((member.offset for member in self.parts.values()), default=0)
        return ArchiveDamage(archive, at, f"sample {self.key.decode(errors='backslashreplace')!r} {what},")


def tar_samples(members: Iterable[Member], archive: str) -> Iterator[TarSample]:
    """Consecutive members with one key; a key ends at the first dot of the name's last part.

    Files without an extension and webdataset's `__…__` files belong to no sample.
    """
    sample: TarSample | None = None
    for member in members:
        directory, slash, base = member.name.rpartition(b"/")
        stem, dot, extension = base.partition(b".")
        if not dot or not stem or (base.startswith(b"__") and base.endswith(b"__")):
            continue
        key = directory + slash + stem
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = TarSample(key)
        name = extension.decode("ascii", "replace").lower()
        if name in sample.parts:
            raise ArchiveDamage(archive, member.offset, f"sample {key!r} has two members .{name},")
        sample.parts[name] = member
    if sample is not None:
        yield sample
