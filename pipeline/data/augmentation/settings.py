"""What is done to an image between its file and the model, in training and in evaluation."""

import math
from dataclasses import dataclass

from pipeline.data.augmentation.policy import Policy
from pipeline.errors import Range, UserError, check_ranges, unknown_name
from tnt.config import MOST

# Mixup and cutmix pair view i of a block of 8 consecutive views of the global batch with view (i + 4)
# mod 8: never the same image, however it is repeated up to four times in a row. Whether a view is mixed or
# cut, lambda and the box are drawn once for a group of 128 views, DeiT's batch per device: every fourth view
# of 512. So no two views of an image share them, as in DeiT, which deals those of an image out to devices.
# What a global batch has beyond a multiple of 512 is four smaller groups, again of every fourth view.
PAIRING_BLOCK = 8
MIX_SPAN, MIX_GROUPS = 512, 4
SHARES = Range(0, 1)
RANGES = {
    "image_size": Range(1, MOST["image_size"]),
    "scale": Range(0, 1, without_least=True),
    "ratio": Range(0.01, 100),
    **dict.fromkeys(("flip", "erase", "mix_probability", "switch_probability"), SHARES),
    **dict.fromkeys(("mixup", "cutmix"), Range(0, 1000)),  # 0 turns one off
    "smoothing": Range(0, 1, without_most=True),
    "mean": SHARES,
    "std": Range(0.001, 10),
    "crop_fraction": Range(0.1, 1),
}
INTERPOLATIONS = ("bicubic", "bilinear", "random")


@dataclass(frozen=True)
class Augmentation:
    """DeiT's recipe (Touvron et al., 2021), which the paper trains with; the meanings are timm's.

    timm turns colour jitter off where RandAugment is on, so that the published commands' `--color-jitter 0.4`
    does nothing; it is not offered here.
    """

    image_size: int = 224  # data.image_size
    scale: tuple[float, float] = (0.08, 1.0)  # crop's share of the image's area
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # crop's width / height
    interpolation: str = "bicubic"  # of crops and of RandAugment; "random": bilinear or bicubic, draw by draw
    flip: float = 0.5  # probability that an image is mirrored
    randaugment: str = "rand-m9-mstd0.5-inc1"  # timm's words for its strength and spread; "" = off
    erase: float = 0.25  # probability that a box is replaced by normal noise, per pixel
    mix_first: bool = False  # boxes are erased after images were mixed, so that their noise is not
    mixup: float = 0.8  # Beta's parameter; 0 = off
    cutmix: float = 1.0  # the same
    mix_probability: float = 1.0  # that a group of views is mixed at all
    switch_probability: float = 0.5  # of cutmix where both are on
    smoothing: float = 0.1  # share of a label that all classes get
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)  # taken from each channel
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)  # by which it is then divided
    crop_fraction: float = 0.9  # evaluation: the crop's edge / the resized image's shorter edge

    def __post_init__(self) -> None:
        check_ranges(self, RANGES, "data.augmentation")
        if self.interpolation not in INTERPOLATIONS:
            raise unknown_name("data.augmentation.interpolation", self.interpolation, INTERPOLATIONS)
        for name in ("scale", "ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise UserError(
                    f"data.augmentation.{name} is {low}, {high}; the first must not be above the second"
                )
        Policy.parse(self.randaugment)

    @property
    def mixes(self) -> bool:
        return self.mix_probability > 0 and max(self.mixup, self.cutmix) > 0

    @property
    def pairing_block(self) -> int:
        """Views that must stay on one rank and in one micro-batch."""
        return PAIRING_BLOCK if self.mixes else 1

    @property
    def resized_edge(self) -> int:
        """Evaluation: the shorter edge before the centre crop (timm rounds down)."""
        return math.floor(self.image_size / self.crop_fraction)

    @property
    def evaluation_interpolation(self) -> str:
        return "bicubic" if self.interpolation == "random" else self.interpolation

    @property
    def fill(self) -> tuple[int, int, int]:
        """What RandAugment's geometric operations uncover."""
        red, green, blue = (min(255, round(255 * channel)) for channel in self.mean)
        return red, green, blue
