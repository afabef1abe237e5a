import shutil

import numpy as np
import pytest
import simplejpeg

from pipeline.data.images.decode import StoredImage, decode_box
from pipeline.data.images.inspection import inspect_image
from pipeline.data.images.jpeg import read_frame, restart_rows
from pipeline.data.packing.pack import make
from pipeline.data.packing.repack import repack, rewritten
from pipeline.data.packing.shard_plan import Packing
from pipeline.data.packing.sources.folder import folder
from pipeline.data.packing.verify import verify
from pipeline.data.shards.manifest import ImageKind, Manifest
from pipeline.data.shards.tar import scan_file
from pipeline.errors import UserError, WorkFailed
from tests.pipeline.pictures import jpeg, pixels, plant_pictures, png, turned, with_stray_bytes

pytestmark = pytest.mark.skipif(not shutil.which("jpegtran"), reason="jpegtran is not installed")


@pytest.fixture
def packed(tmp_path):
    plant_pictures(tmp_path / "pictures", per_class=6)
    make(folder(tmp_path / "pictures"), tmp_path / "set", Packing(samples_per_shard=8))
    return tmp_path / "set"


def payloads(manifest):
    found = {}
    for i, key in enumerate(manifest.key.tolist()):
        data = manifest.path(manifest.shard[i]).read_bytes()
        found[key] = data[manifest.offset[i] :][: manifest.length[i]]
    return found


def test_every_pixel_label_key_and_order_stays_and_rows_are_recorded(packed, tmp_path):
    repack(packed, tmp_path / "bands", workers=2)
    for split in ("train", "validation"):
        before, after = Manifest.read(packed, split), Manifest.read(tmp_path / "bands", split)
        old, new = payloads(before), payloads(after)
        for name in ("key", "label", "shard", "width", "height"):
            assert np.array_equal(getattr(before, name), getattr(after, name)), name
        assert before.classes == after.classes
        for i, key in enumerate(after.key.tolist()):
            assert np.array_equal(pixels(old[key]), pixels(new[key])), key
            assert after.is_sound(i, new[key])
            if after.kind[i] == ImageKind.JPEG:
                assert after.rows(i).tolist() == restart_rows(new[key]).tolist()
                assert len(after.rows(i)) == -(-after.height[i] // read_frame(new[key]).mcu_size[1])
            else:
                assert len(after.rows(i)) == 0
    assert verify(tmp_path / "bands") == []
    old_names = [m.name for path in sorted(packed.glob("*.tar")) for m in scan_file(path)]
    new_names = [m.name for path in sorted((tmp_path / "bands").glob("*.tar")) for m in scan_file(path)]
    assert old_names == new_names


def test_progressive_files_become_sequential_and_odd_ones_stay_as_they_are():
    cases = {
        jpeg(90, 70, progressive=True): ImageKind.JPEG,
        jpeg(90, 70, mode="CMYK"): ImageKind.CMYK,
        png(90, 70): ImageKind.PNG,
        with_stray_bytes(jpeg(90, 70)): ImageKind.OTHER,
    }
    for payload, kind in cases.items():
        after, image = rewritten(payload, inspect_image(payload))
        assert image.kind == kind
        assert (after == payload) == (kind != ImageKind.JPEG)


def test_what_the_file_says_besides_its_pixels_is_kept():
    payload = turned(jpeg(90, 70))
    after, _ = rewritten(payload, inspect_image(payload))
    assert read_frame(after).orientation == 6
    assert len(restart_rows(after)) > 0


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_box_of_a_rewritten_image_holds_the_pixels_of_the_original(subsampling):
    payload = jpeg(390, 200, subsampling=subsampling)
    after, image = rewritten(payload, inspect_image(payload))
    stored = StoredImage(after, image.kind, image.width, image.height, restart_rows(after))
    pixels, top, left = decode_box(stored, (70, 150, 90, 170))
    assert pixels.size < 0.25 * 3 * 390 * 200
    whole = simplejpeg.decode_jpeg(payload)
    assert np.array_equal(pixels[70 - top : 90 - top, 150 - left : 170 - left], whole[70:90, 150:170])


def test_repacking_twice_changes_nothing(packed, tmp_path):
    repack(packed, tmp_path / "once")
    repack(tmp_path / "once", tmp_path / "twice")
    for split in ("train", "validation"):
        once, twice = Manifest.read(tmp_path / "once", split), Manifest.read(tmp_path / "twice", split)
        assert once.fingerprint == twice.fingerprint
    assert repack(packed, tmp_path / "once").complete_before


def test_a_damaged_set_is_not_repacked(packed, tmp_path):
    manifest = Manifest.read(packed, "train")
    path = manifest.path(0)
    sound = path.read_bytes()
    damaged = bytearray(sound)
    damaged[int(manifest.offset[3]) + 40] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(WorkFailed, match=f"sample {manifest.key[3].decode()} is damaged"):
        repack(packed, tmp_path / "bands")
    path.write_bytes(sound[:-512])
    with pytest.raises(WorkFailed, match="is short"):
        repack(packed, tmp_path / "bands")
    assert not list((tmp_path / "bands").glob("*.tar"))
    path.write_bytes(sound)
    with pytest.raises(UserError, match="is the set itself"):
        repack(packed, packed)


def test_without_jpegtran_the_package_is_named(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="libjpeg-turbo-progs"):
        repack(packed, tmp_path / "bands")
