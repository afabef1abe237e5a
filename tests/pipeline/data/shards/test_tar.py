import io
import os
import tarfile

import numpy as np
import pytest

from pipeline.data.shards.tar import BLOCK, ArchiveDamage, ArchiveWriter, Member, scan, scan_file
from pipeline.errors import UserError, WorkFailed

LONG = b"directory/" * 12 + b"a" * 90 + b".jpg"


def written(members):
    file = io.BytesIO()
    writer = ArchiveWriter(file)
    offsets = [writer.add(name, payload) for name, payload in members]
    writer.close()
    assert writer.bytes == len(file.getvalue())
    return file.getvalue(), offsets


def scanned(data, **options):
    return list(scan(lambda at, count: data[at : at + count], 0, len(data), "some.tar", **options))


def sample_archive():
    generator = np.random.default_rng(1)
    members = []
    for index, size in enumerate((1, 511, 512, 513, 5000, 0, 70_000)):
        members += [(b"c/%02d.jpg" % index, generator.bytes(size)), (b"c/%02d.cls" % index, b"%d" % index)]
    return members


def test_members_come_back_with_their_places():
    members = [*sample_archive(), (LONG, b"x"), ("größe/ü .jpg".encode(), b"y")]
    data, offsets = written(members)
    found = scanned(data)
    assert found == [Member(name, at, len(p)) for (name, p), at in zip(members, offsets, strict=True)]
    assert [data[m.offset : m.offset + m.size] for m in found] == [payload for _, payload in members]


def test_other_programs_read_what_is_written():
    members = [*sample_archive(), (LONG, b"x"), ("größe/ü .jpg".encode(), b"y")]
    data, _ = written(members)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [(m.name.encode(), archive.extractfile(m).read()) for m in archive] == members
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in archive} == {(0, 0, 0, 0o644, "")}


def test_the_same_members_give_the_same_bytes():
    assert written(sample_archive()) == written(sample_archive())


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_other_programs_archives_are_read(form, tmp_path):
    long_name = LONG if form == tarfile.USTAR_FORMAT else b"n" * 300 + b".jpg"
    members = [*sample_archive(), (long_name, b"x"), ("größe/ü .jpg".encode(), b"y")]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        directory = tarfile.TarInfo("c")
        directory.type = tarfile.DIRTYPE
        archive.addfile(directory)
        for name, payload in members:
            info = tarfile.TarInfo(name.decode())
            info.size, info.mtime = len(payload), 1234567.25
            archive.addfile(info, io.BytesIO(payload))
    data = (tmp_path / "a.tar").read_bytes()
    found = list(scan_file(tmp_path / "a.tar"))
    assert [(m.name, data[m.offset : m.offset + m.size]) for m in found] == members


def test_an_archive_within_an_archive_is_read_in_place(tmp_path):
    inner, _ = written(sample_archive())
    outer, (_, at) = written([(b"first.tar", b"z" * 700), (b"second.tar", inner)])
    (tmp_path / "outer.tar").write_bytes(outer)
    found = list(scan_file(tmp_path / "outer.tar", at, at + len(inner)))
    assert [m.name for m in found] == [name for name, _ in sample_archive()]
    assert [outer[m.offset : m.offset + m.size] for m in found] == [
        payload for _, payload in sample_archive()
    ]


def test_every_truncation_is_an_error():
    data, _ = written(sample_archive())
    ends = {*range(0, len(data), BLOCK), *np.random.default_rng(0).integers(1, len(data), 300).tolist()}
    for end in ends:
        with pytest.raises(ArchiveDamage, match=r"some\.tar: .* at byte \d+"):
            scanned(data[:end])


@pytest.mark.slow
def test_every_flipped_bit_of_a_header_or_the_padding_is_an_error():
    data, _ = written(sample_archive()[:6])
    payload = set()
    for member in scanned(data):
        payload |= set(range(member.offset, member.offset + member.size))
    for place in range(len(data) * 8):
        if place // 8 in payload:
            continue
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << (place % 8)
        with pytest.raises(ArchiveDamage) as raised:
            scanned(bytes(damaged))
        assert raised.value.offset <= place // 8 < raised.value.offset + 2 * BLOCK


def test_zeroed_headers_and_data_after_the_end_are_errors():
    data, offsets = written(sample_archive())
    for offset in offsets[:-1]:  # nothing tells an erased last member from the end; its sample is incomplete
        for blocks in (1, 2):
            start = offset - BLOCK
            damaged = data[:start] + bytes(blocks * BLOCK) + data[start + blocks * BLOCK :]
            with pytest.raises(ArchiveDamage):
                scanned(damaged)
    for tail in (b"x", data, bytes(100)):
        with pytest.raises(ArchiveDamage):
            scanned(data + tail)
    assert scanned(data + bytes(20 * BLOCK)) == scanned(data)


def test_links_and_devices_are_refused():
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            info = tarfile.TarInfo("evil")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        with pytest.raises(ArchiveDamage, match="no regular file"):
            scanned(file.getvalue())


def test_checksums_padded_with_spaces_are_admitted_on_request_only():
    data, _ = written([(b"a.jpg", b"abc")])
    assert data[148:149] == b"0"
    padded = data[:148] + b" " + data[149:]
    with pytest.raises(ArchiveDamage):
        scanned(padded)
    assert scanned(padded, old=True) == scanned(data)


def test_a_missing_archive_and_an_impossible_name_are_told_in_one_line(tmp_path):
    with pytest.raises(WorkFailed, match="is missing"):
        list(scan_file(tmp_path / "no.tar"))
    with pytest.raises(UserError, match="too long"):
        written([(b"a" * 101, b"")])


def test_scanning_keeps_no_file_open(tmp_path):
    (tmp_path / "a.tar").write_bytes(written(sample_archive())[0])
    before = len(os.listdir("/proc/self/fd"))
    next(scan := scan_file(tmp_path / "a.tar"))
    scan.close()
    assert len(os.listdir("/proc/self/fd")) == before
