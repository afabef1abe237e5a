"""A network of one's own, which the corpus of overrides names."""

from dataclasses import dataclass

from torch import nn


@dataclass
class Settings:
    width: int = 8
    image_size: int = 224
    classes: int = 1000


class Net(nn.Linear):
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.width, settings.classes)
