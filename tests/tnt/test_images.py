import io

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

from tnt.images import ImageError, Item, batches, centre, find_images, load_image, open_image, to_tensor


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def evaluation(size: int):
    """timm's evaluation of the published TNTs."""
    return timm.data.create_transform(
        size, crop_pct=0.9, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(640, 427, 224), (300, 500, 384), (31, 57, 24), (225, 224, 224), (1001, 333, 224), (20, 20, 64)],
)
def test_the_input_is_timms_pixel_for_pixel(width, height, size):
    image = picture(width, height)
    assert torch.equal(to_tensor(centre(image, size)), evaluation(size)(image))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_other_colour_modes_become_rgb_as_in_evaluation(mode, tmp_path):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    picture(50, 40, mode).save(path)
    assert torch.equal(load_image(path, 32), evaluation(32)(Image.open(path).convert("RGB")))


def test_a_rotation_mark_is_not_obeyed_as_in_timm(tmp_path):
    marked = Image.Exif()
    marked[0x0112] = 6
    picture(60, 40).save(tmp_path / "x.png", exif=marked)
    assert torch.equal(load_image(tmp_path / "x.png", 32), evaluation(32)(picture(60, 40)))


def test_a_grey_model_gets_one_channel(tmp_path):
    picture(50, 40).save(tmp_path / "x.png")
    assert load_image(tmp_path / "x.png", 32, channels=1).shape == (1, 32, 32)
    with pytest.raises(ValueError, match="takes images of 4 channels, image files give 1 or 3"):
        load_image(tmp_path / "x.png", 32, channels=4)


def test_transparency_is_refused_unless_it_hides_nothing_or_is_dropped(tmp_path):
    image = picture(40, 40, "RGBA")
    image.save(tmp_path / "opaque.png")
    image.putpixel((3, 3), (1, 2, 3, 4))
    image.save(tmp_path / "holes.png")
    assert torch.equal(load_image(tmp_path / "opaque.png", 32), evaluation(32)(picture(40, 40)))
    with pytest.raises(
        ImageError, match=r"holes.png: 4 channels \(RGBA\) with transparency; put it on a back"
    ):
        load_image(tmp_path / "holes.png", 32)
    assert load_image(tmp_path / "holes.png", 32, drop_alpha=True).shape == (3, 32, 32)


def test_what_cannot_be_read_is_named_with_what_to_do(tmp_path):
    jpeg = io.BytesIO()
    picture(100, 100).save(jpeg, "jpeg")
    (tmp_path / "cut.jpg").write_bytes(jpeg.getvalue()[:2000])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    picture(1000, 2).save(tmp_path / "line.png")
    for name, says in {
        "cut.jpg": "damaged (image file is truncated",
        "text.jpg": "no image file; replace it",
        "empty.png": "no image file; replace it",
        "gone.jpg": "no such file",
        "line.png": "too long; cut it",
    }.items():
        with pytest.raises(ImageError) as error:
            load_image(tmp_path / name, 32)
        assert str(tmp_path / name) in str(error.value)
        assert says in str(error.value)


def test_bytes_are_opened_as_files_are(tmp_path):
    picture(50, 40).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    assert open_image(Item("x", content)).tobytes() == open_image(Item("x", tmp_path / "x.png")).tobytes()


def test_a_folder_gives_its_images_by_name_and_an_empty_one_is_refused(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("c.JPG", "a.png", "b/a.jpeg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    found = [item.name.removeprefix(f"{tmp_path}/") for item in find_images([tmp_path])]
    assert found == ["a.png", "b/a.jpeg", "c.JPG"]
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"no images under .*none; they are known by their names: .jpg"):
        find_images([tmp_path / "none"])


def test_batches_keep_order_and_say_what_is_missing(tmp_path):
    for k in range(5):
        Image.new("RGB", (30, 30), (50 * k, 0, 0)).save(tmp_path / f"{k}.png")
    (tmp_path / "1.png").write_text("damaged")
    found = list(batches(find_images([tmp_path]), 16, batch_size=2))
    assert [len(batch.items) for batch in found] == [2, 2, 1]
    assert [len(batch.images) for batch in found] == [1, 2, 1]
    assert "1.png" in found[0].errors[1]
    assert [error for batch in found for error in batch.errors if error] == [found[0].errors[1]]
    reds = torch.cat([batch.images[:, 0, 0, 0] for batch in found])
    expected = torch.tensor([0, 100, 150, 200]) / 255 * 2 - 1
    torch.testing.assert_close(reds, expected)
    with pytest.raises(ValueError, match="batch of 0 images; give 1 or more"):
        next(batches([], 16, batch_size=0))
