"""Images in webdataset shards: tar files where `<key>.jpg` and `<key>.cls` (a label) stand side by side."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tnt.images import SUFFIXES, Item


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
        size = shard.stat().st_size
        with shard.open("rb") as file:
            file.seek(max(0, size - 1024))
            whole = size >= 1024 and size % 512 == 0 and not any(file.read())
    except FileNotFoundError:
        raise ValueError(f"no shard at {shard}") from None
    if not whole:
        raise ValueError(f"{shard} is truncated: {size} bytes without a tar's end; build or copy it again")


def shard_items(shard: Path) -> Iterator[Item]:
    """The images of a shard in its order, with the label that stands beside each."""
    try:
        with tarfile.open(shard, "r:") as archive:
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
                    image = (member.name, _content(archive, member))
                elif extension == "cls":
                    label = _label(shard, member.name, _content(archive, member))
            yield from _item(shard, image, label)
    except tarfile.TarError as error:
        raise ValueError(f"{shard} is damaged: {error}; build or copy it again") from error


def _item(shard: Path, image: tuple[str, bytes] | None, label: int | None) -> Iterator[Item]:
    if image is not None:
        yield Item(f"{shard.name}/{image[0]}", image[1], label)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # regular files have content
    return file.read()


def _label(shard: Path, name: str, content: bytes) -> int:
    try:
        return int(content)
    except ValueError:
        raise ValueError(f"{shard}: {name} holds {content[:20]!r}, not a label") from None
