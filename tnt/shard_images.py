"""Images in webdataset shards: tar files where `<key>.jpg` and `<key>.cls` (a label) stand side by side."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tnt.config import MOST
from tnt.images import SUFFIXES, Item
from tnt.untrusted.pictures import MOST_BYTES
from tnt.untrusted.reading import UserError, open_regular, whole_number

LABEL_BYTES = 64


def find_shards(sources: Iterable[str | Path]) -> list[Path]:
    """The `.tar` files among files and in folders, each checked to end as a tar file must."""
    shards = []
    for source in map(Path, sources):
        inside = sorted(source.glob("*.tar")) if source.is_dir() else [source]
        shards += [path for path in inside if path.suffix == ".tar"]
    for shard in shards:
        _check_whole(shard)
    return shards


def _check_whole(shard: Path) -> None:
    """A tar ends in two blocks of zeros; a truncated one does not."""
    try:
        with open_regular(shard) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - 1024))
            whole = size >= 1024 and size % 512 == 0 and not any(file.read())
    except FileNotFoundError:
        raise ValueError(f"no shard at {shard}") from None
    if not whole:
        raise ValueError(f"{shard} is truncated: {size} bytes without a tar's end; build or copy it again")


def shard_items(shard: Path) -> Iterator[Item]:
    """The images of a shard in its order, with the label that stands beside each."""
    try:
        with open_regular(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            image: tuple[str, bytes] | None = None
            label: int | None = None
            key = ""
            for member in archive:
                if not member.isfile():
                    continue
                start, _, extension = member.name.rpartition("/")[2].partition(".")
                stem = f"{member.name.rpartition('/')[0]}/{start}".lstrip("/")
                if stem != key:
                    yield from _item(shard, image, label)
                    key, image, label = stem, None, None
                if f".{extension.lower()}" in SUFFIXES:
                    image = (member.name, _content(archive, member, MOST_BYTES))
                elif extension == "cls":
                    label = _label(shard, member.name, _content(archive, member, LABEL_BYTES))
            yield from _item(shard, image, label)
    except (tarfile.TarError, ValueError, OverflowError) as error:  # the last two of its numbers
        if isinstance(error, UserError):
            raise
        raise ValueError(f"{shard} is damaged: {error}; build or copy it again") from error


def _item(shard: Path, image: tuple[str, bytes] | None, label: int | None) -> Iterator[Item]:
    if image is not None:
        yield Item(f"{shard.name}/{image[0]}", image[1], label)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    if member.size > most:
        raise UserError(f"{member.name} has {member.size:,} bytes; at most {most:,} are read of it")
    file = archive.extractfile(member)
    assert file is not None  # regular files have content
    return file.read()


def _label(shard: Path, name: str, content: bytes) -> int:
    return whole_number(content, 0, MOST["classes"], f"{shard}: {name}")
