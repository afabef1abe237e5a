import subprocess
import sys

import pytest

from pipeline.data.augmentation.settings import Augmentation
from pipeline.errors import UserError


def test_the_default_is_the_papers_recipe():
    aug = Augmentation()
    assert (aug.mixup, aug.cutmix, aug.smoothing, aug.erase) == (0.8, 1.0, 0.1, 0.25)
    assert aug.randaugment == "rand-m9-mstd0.5-inc1"
    assert aug.resized_edge == 248
    assert aug.fill == (128, 128, 128)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image_size": 0}, "image_size"),
        ({"interpolation": "nearest"}, "bicubic, bilinear"),
        ({"scale": (0.5, 0.1)}, "scale"),
        ({"ratio": (0.0, 1.0)}, "ratio"),
        ({"flip": 1.5}, "flip is 1.5"),
        ({"erase": -0.1}, "erase is -0.1"),
        ({"smoothing": 1.0}, "smoothing"),
        ({"mixup": -1.0}, "mixup is -1.0; it must be from 0"),
        ({"std": (0.5, 0.0, 0.5)}, "std"),
        ({"crop_fraction": 0.0}, "crop_fraction"),
        ({"randaugment": "augmix-m3"}, "augmix-m3"),
        ({"randaugment": "rand-x9"}, "unknown part"),
        ({"randaugment": "rand-m"}, "'m'"),
    ],
)
def test_a_wrong_value_is_named(change, named):
    with pytest.raises(UserError, match=named):
        Augmentation(**change)


def test_the_configuration_and_the_draws_need_neither_torch_nor_opencv():
    code = (
        "import sys; from pipeline.data.augmentation import draws, settings; "
        "print({'torch', 'cv2', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
