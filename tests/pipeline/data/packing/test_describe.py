import io

import numpy as np
import pytest
from PIL import Image

from pipeline.data.packing.describe import CELL, LABEL, contact_sheet, describe
from pipeline.data.packing.pack import Packing, make
from pipeline.data.packing.sources.folder import folder
from pipeline.data.shards.manifest import Manifest
from pipeline.errors import UserError, WorkFailed
from tests.pipeline.pictures import encoded, plant, plant_pictures


@pytest.mark.slow
def test_info_says_what_a_set_holds(tmp_path):
    plant_pictures(tmp_path / "pictures")
    make(folder(tmp_path / "pictures"), tmp_path / "set", Packing(samples_per_shard=7))
    manifests = Manifest.read_all(tmp_path / "set")
    said = describe(manifests)
    for part in (
        "28 images in 4 shards",
        "2: cat, dog",
        "13 (cat) to 15 (dog)",
        "7 to 7 images",
        "1 progressive JPEG, 1 CMYK JPEG, 1 grey JPEG, 1 PNG, 1 read by Pillow",
        "1 to 109 px",
        manifests[0].fingerprint,
    ):
        assert part in said


def test_the_contact_sheet_shows_each_class_in_its_row(tmp_path):
    colours = {"red": (200, 0, 0), "green": (0, 200, 0), "with a very long name that fills more": (0, 0, 200)}
    plant(
        tmp_path / "pictures",
        {
            f"{c}/{i}.png": encoded(Image.new("RGB", (50, 50), rgb), "PNG")
            for c, rgb in colours.items()
            for i in "abc"
        },
    )
    make(folder(tmp_path / "pictures"), tmp_path / "set", Packing())
    manifests = Manifest.read_all(tmp_path / "set")
    contact_sheet(manifests, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())))
    column = sheet[:, LABEL + CELL // 2]
    order = [colours[name] for name in manifests[0].classes]
    places = [np.flatnonzero((column == rgb).all(axis=1)) for rgb in order]
    assert [len(place) for place in places] == [CELL] * 3
    assert places[0].max() < places[1].min() < places[2].min()
    # The labels stay in their column.
    assert (sheet[60:, LABEL - 8 : LABEL] == 255).all()


def test_a_sheet_that_cannot_be_drawn_is_one_line(tmp_path):
    plant_pictures(tmp_path / "pictures", per_class=2)
    make(folder(tmp_path / "pictures"), tmp_path / "set", Packing())
    manifests = Manifest.read_all(tmp_path / "set")
    with pytest.raises(UserError, match=r"must be a \.png file"):
        contact_sheet(manifests, tmp_path / "sheet.jpg")
    with pytest.raises(UserError, match="nowhere is not a directory"):
        contact_sheet(manifests, tmp_path / "nowhere/sheet.png")
    manifests[0].path(0).unlink()
    with pytest.raises(WorkFailed, match="cannot be read: No such file"):
        contact_sheet(manifests, tmp_path / "sheet.png")
