import numpy as np
import pytest
from PIL import Image
from timm.data.auto_augment import AugmentOp
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms.functional import hflip

from pipeline.data.augmentation.draws import draw_views
from pipeline.data.augmentation.policy import NOTHING, OPERATIONS
from pipeline.data.augmentation.settings import Augmentation
from pipeline.data.images.decode import decode
from tests.pipeline.data.augmentation import oracle
from tests.pipeline.photographs import NAMES, stored

SIGN_FREE = ("AutoContrast", "Equalize", "Invert")


class FixedOperation(AugmentOp):
    """timm's own operation with its argument given instead of drawn."""

    def __init__(self, name, argument, aug):
        super().__init__(name, 1.0, 9, {"img_mean": aug.fill, "interpolation": Image.Resampling.BICUBIC})
        self.level_fn = None if name in SIGN_FREE else lambda *_: (argument,)


def by_timms_classes(image, draws, index, aug, monkeypatch):
    """timm's transform objects, made to draw what the table says."""
    top, left, height, width = draws.crop[index].tolist()
    crop = RandomResizedCropAndInterpolation(aug.image_size, interpolation=aug.interpolation)
    monkeypatch.setattr(crop, "get_params", lambda *_: (top, left, height, width), raising=True)
    view = crop(Image.fromarray(decode(image)))
    view = hflip(view) if draws.flip[index] else view
    for operation, argument in zip(draws.operation[index], draws.argument[index].tolist(), strict=True):
        if operation != NOTHING:
            name = OPERATIONS[operation]
            whole = name in ("Posterize", "Solarize", "SolarizeAdd")
            view = FixedOperation(name, int(argument) if whole else argument, aug)(view)
    return np.asarray(view)


@pytest.mark.parametrize("name", NAMES)
def test_the_oracle_is_timms_transform_on_the_same_draws(name, monkeypatch):
    aug, image = Augmentation(), stored(name)
    draws = draw_views(aug, 0, 0, np.arange(80), np.full(80, image.width), np.full(80, image.height))
    assert len(np.unique(draws.operation)) >= 14
    out = np.zeros((80, 224, 224, 3), np.uint8)
    oracle.render_views(image, draws, range(80), list(out), aug)
    for index in range(80):
        assert np.array_equal(out[index], by_timms_classes(image, draws, index, aug, monkeypatch)), index
