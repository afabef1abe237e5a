import io
import tarfile

import pytest
from PIL import Image

from tnt.shard_images import find_shards, shard_items


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (value, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


def write_shard(path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def test_images_come_in_order_with_the_label_beside_them(tmp_path):
    members = {
        "train/a.cls": b"7",
        "train/a.png": png(1),
        "b.png": png(2),
        "b.json": b"{}",
        "c.v2.png": b"other",
        "d.cls": b"1",
        "e.PNG": png(3),
        "e.cls": b"12\n",
    }
    write_shard(tmp_path / "s.tar", members)
    found = list(shard_items(tmp_path / "s.tar"))
    assert [(item.name, item.label) for item in found] == [
        ("s.tar/train/a.png", 7),
        ("s.tar/b.png", None),
        ("s.tar/e.PNG", 12),
    ]
    assert found[0].content == png(1)


def test_a_folder_gives_its_shards_and_a_folder_without_any_gives_none(tmp_path):
    for name in ("b.tar", "a.tar"):
        write_shard(tmp_path / name, {"x.png": png(1)})
    assert [shard.name for shard in find_shards([tmp_path])] == ["a.tar", "b.tar"]
    assert find_shards([tmp_path / "a.tar"]) == [tmp_path / "a.tar"]
    (tmp_path / "other").mkdir()
    assert find_shards([tmp_path / "other"]) == []


def test_a_truncated_shard_is_refused_before_anything_is_read(tmp_path):
    path = tmp_path / "s.tar"
    write_shard(path, {f"{k}.png": png(k) for k in range(3)})
    content = path.read_bytes()
    for length in (len(content) - 9000, 1536, 100, 0):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"s\.tar is truncated: .*build or copy it again"):
            find_shards([path])
    with pytest.raises(ValueError, match="no shard at"):
        find_shards([tmp_path / "gone.tar"])


def test_a_damaged_header_and_a_label_that_is_none_are_named(tmp_path):
    path = tmp_path / "s.tar"
    write_shard(path, {"a.png": png(1), "b.png": png(2)})
    content = bytearray(path.read_bytes())
    content[0:200] = b"x" * 200
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"s\.tar is damaged"):
        list(shard_items(path))
    write_shard(path, {"a.png": png(1), "a.cls": b"cat"})
    with pytest.raises(ValueError, match=r"a\.cls: 'cat' is no number"):
        list(shard_items(path))
