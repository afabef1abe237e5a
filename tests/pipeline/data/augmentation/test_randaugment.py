import numpy as np
import pytest
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP

from pipeline.data.augmentation.policy import NOTHING, OPERATIONS, Policy
from pipeline.data.augmentation.randaugment import apply_operation, mirrored, randaugment
from tests.pipeline.data.augmentation.oracle import INTEGER_ARGUMENT, NO_ARGUMENT
from tests.pipeline.photographs import NAMES, pixels

FILL = (128, 100, 7)
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
TONAL = tuple(name for name in OPERATIONS if name not in GEOMETRIC)
# Odd edges: a translation by a whole number of pixels, but for its rounding, is where Pillow truncates noise.
IMAGES = {
    "china": pixels("china.jpg", 330, 220)[:211, 100:321].copy(),
    "flower": pixels("flower.jpg", 330, 220)[:197, 40:263].copy(),
    "flat": np.full((64, 48, 3), (10, 200, 255), np.uint8),
    "two levels": np.repeat(np.array([[[3, 90, 0]], [[250, 90, 255]]], np.uint8), 40, axis=1),
    "one pixel": np.array([[[9, 120, 240]]], np.uint8),
}


def arguments(name):
    """What the policy asks of an operation, at all magnitudes and for both signs."""
    levels = np.linspace(0, 1, 6)
    found = [
        policy._arguments(np.full(6, OPERATIONS.index(name), np.int8), levels, np.full(6, sign))
        for policy in (Policy(increasing=True), Policy())
        for sign in (1.0, -1.0)
    ]
    return sorted(set(np.concatenate(found).tolist()))


def by_timm(name, image, argument, linear=False):
    value = int(argument) if name in INTEGER_ARGUMENT else float(argument)
    values = () if name in NO_ARGUMENT else (value,)
    picture = Image.fromarray(image)
    kind = Image.Resampling.BILINEAR if linear else Image.Resampling.BICUBIC
    return np.asarray(NAME_TO_OP[name](picture, *values, fillcolor=FILL, resample=kind))


def difference(name, image, argument, linear=False):
    ours = apply_operation(name, image, argument, FILL, linear)
    assert ours.shape == image.shape
    assert ours.dtype == np.uint8
    return np.abs(ours.astype(int) - by_timm(name, image, argument, linear))


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("name", TONAL)
def test_tones_equal_pillows_bit_by_bit(name, image):
    for argument in arguments(name):
        assert not difference(name, image, argument).any(), argument


@pytest.mark.parametrize(
    ("name", "values"),
    [("Posterize", range(1, 9)), ("Solarize", range(257)), ("SolarizeAdd", range(129))],
)
def test_tones_equal_pillows_at_every_level(name, values):
    image = np.arange(3 * 256).reshape(16, 16, 3).astype(np.uint8)
    for value in values:
        assert not difference(name, image, value).any(), value


def test_posterizing_to_no_bits_is_black():
    assert not apply_operation("Posterize", IMAGES["china"], 0.0, FILL).any()


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateXRel", "TranslateYRel"])
@pytest.mark.parametrize("linear", [False, True], ids=["bicubic", "bilinear"])
def test_shear_and_translation_equal_pillows_to_one_level(name, linear, image):
    for argument in arguments(name):
        error = difference(name, image, argument, linear)
        assert error.max() <= 1, argument
        assert (error > 0).mean() < 0.05, argument


@pytest.mark.parametrize("image", [IMAGES["china"], IMAGES["flower"]], ids=["china", "flower"])
def test_rotation_is_pillows_but_for_the_cubics_parameter(image):
    """The corners that a rotation uncovers are exactly Pillow's; inside, 40 dB and more."""
    for argument in arguments("Rotate"):
        error = difference("Rotate", image, argument)
        assert np.sqrt((error**2).mean()) < 255 * 10 ** (-40 / 20), argument
        assert error.max() <= 40, argument
        uncovered = (by_timm("Rotate", image, argument) == FILL).all(2)
        assert (error[uncovered].max(initial=0) == 0) or argument == 0


@pytest.mark.parametrize("image", [IMAGES["china"], IMAGES["flower"]], ids=["china", "flower"])
def test_a_bilinear_rotation_is_pillows(image):
    """OpenCV counts in 32nds of a pixel: 40 dB and more, as above."""
    for argument in arguments("Rotate"):
        error = difference("Rotate", image, argument, linear=True)
        assert np.sqrt((error**2).mean()) < 255 * 10 ** (-40 / 20), argument


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "TranslateYRel"])
def test_a_flat_image_stays_flat_where_it_is_not_uncovered(name):
    plain = np.full((50, 40, 3), 77, np.uint8)
    for argument in arguments(name):
        assert set(np.unique(apply_operation(name, plain, argument, (5, 5, 5)))) <= {5, 77}


@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateXRel", "TranslateYRel"])
def test_an_image_moved_out_of_sight_leaves_the_fill(name):
    for argument in (3.0, -3.0):
        assert not difference(name, IMAGES["flat"], argument).any()


def test_a_row_of_the_table_is_applied_in_order():
    image = IMAGES["china"]
    row = np.array([OPERATIONS.index("Solarize"), NOTHING, OPERATIONS.index("Brightness")], np.int8)
    values = np.array([90.0, 0.0, 0.4])
    expected = by_timm("Brightness", by_timm("Solarize", image, 90), 0.4)
    cubic = np.zeros(3, bool)
    assert np.array_equal(randaugment(image, row, values, cubic, FILL), expected)
    assert not np.array_equal(randaugment(image, row[::-1], values[::-1], cubic, FILL), expected)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_leaves_its_input_alone(name):
    image = IMAGES["china"].copy()
    apply_operation(name, image, arguments(name)[-1], FILL)
    assert np.array_equal(image, IMAGES["china"])


def test_mirroring_swaps_left_and_right():
    assert np.array_equal(mirrored(IMAGES["china"]), IMAGES["china"][:, ::-1])


def test_the_photographs_differ():
    assert len({photo.tobytes() for photo in (pixels(name) for name in NAMES)}) == 2
