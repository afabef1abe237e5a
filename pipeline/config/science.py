"""What decides a run's numbers: the model, the data and the recipe. Nothing here says where or how fast."""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pipeline.data.augmentation.settings import MIX_GROUPS
from pipeline.data.loading.sampler import Sampling
from pipeline.data.settings import DataConfig
from pipeline.errors import Range, UserError, check_ranges, unknown_name
from tnt.config import MOST, PYRAMID, PyramidConfig, TNTConfig
from tnt.own.files import OwnNetwork, find, is_own

TIMM = "timm:"
CHOICES = {
    "lr_changes": ("step", "epoch"),
    "optimizer": ("adamw", "lamb"),
    "loss": ("cross_entropy", "bce"),
    "drop_path_rates": ("linear", "uniform"),
}
SIZES = {name: Range(1, MOST[name]) for name in ("image_size", "classes")}
EPOCHS, RATES, SHARES = Range(1, 1_000_000), Range(0, 100), Range(0, 1, without_most=True)
RANGES = {
    "epochs": EPOCHS,
    "global_batch": Range(1, 1 << 20),
    "repeats": Range(1, MIX_GROUPS),  # above, images would mix with themselves
    "lr": Range(0, 100, without_least=True),
    "min_lr": RATES,
    "warmup_epochs": Range(0, 1_000_000),
    "warmup_lr": RATES,
    "cooldown_epochs": Range(0, 1_000_000),
    "layer_decay": Range(0, 1, without_least=True),
    "weight_decay": Range(0, 100),
    "beta1": SHARES,
    "beta2": SHARES,
    "eps": Range(0, 1, without_least=True),
    "clip": Range(0, 1_000_000),
    "drop_path": SHARES,
    "ema": SHARES,
    "ema_share": Range(0, 1, without_least=True),
    "evaluate_every": EPOCHS,
}


@dataclass(frozen=True)
class TimmConfig:
    """What may be said of any network of timm's."""

    image_size: int = 224
    classes: int = 1000
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self, SIZES | {"drop_path": SHARES}, "model")


@dataclass(frozen=True)
class OwnConfig:
    """What may be said of a network of one's own: each has a subclass, with its settings as fields."""

    ranges: ClassVar[dict[str, Range]] = {}
    source: ClassVar[str] = ""  # the hash of its files

    if TYPE_CHECKING:
        image_size: int
        classes: int
        drop_path: float

    def __post_init__(self) -> None:
        ranges = {name: valid for name, valid in self.ranges.items() if getattr(self, name) is not None}
        check_ranges(self, ranges, "model")


@dataclass(frozen=True)
class ModelConfig:
    name: str = "tnt_s"  # the variant that the network started from, timm:<name>, or <module>:<attribute>
    network: TNTConfig | PyramidConfig | TimmConfig | OwnConfig = field(
        default_factory=lambda: TNTConfig(drop_path=0.1)
    )

    @property
    def timm_name(self) -> str | None:
        """Its name in timm; None for a network of ours."""
        return self.name.removeprefix(TIMM) if self.name.startswith(TIMM) else None


def network_kind(model: Mapping[str, Any]) -> type[TNTConfig | PyramidConfig | TimmConfig | OwnConfig]:
    """What the settings of a network are, by its name or its form."""
    name = str(model.get("name", ""))
    if name.startswith(TIMM):
        return TimmConfig
    if is_own(name):
        return kind_of(name)
    return PyramidConfig if model.get("form") == PYRAMID else TNTConfig


def kind_of(name: str) -> type[OwnConfig]:
    return _kind(find(name))


@functools.lru_cache(maxsize=32)
def _kind(own: OwnNetwork) -> type[OwnConfig]:
    fields: list[Any] = [
        (each.name, each.hint, dataclasses.field(default=each.default)) for each in own.settings
    ]
    ranges = SIZES | {each.name: Range(*each.bounds) for each in own.settings if each.bounds is not None}
    namespace: dict[str, Any] = {"ranges": ranges, "source": f"sha256:{own.sha256}"}
    if "drop_path" not in {each.name for each in own.settings}:
        namespace["drop_path"] = 0.0
    return dataclasses.make_dataclass(
        own.kind, fields, bases=(OwnConfig,), frozen=True, kw_only=True, namespace=namespace
    )


@dataclass(frozen=True)
class Recipe:
    """Table 3 and the official command. Learning rates are those of the whole global batch."""

    epochs: int = 300  # as many views as the split has images, each
    global_batch: int = 1024  # views of a step, of all devices together
    repeats: int = 3  # views of an image that stand together in an epoch (repeated augmentation)
    lr: float = 1e-3  # at the end of the warm-up
    min_lr: float = 1e-5  # at the end of the run
    warmup_epochs: float = 5.0  # in which the rate grows from warmup_lr to lr
    warmup_lr: float = 1e-6  # at the first step
    cooldown_epochs: int = 0  # of the epochs, the last ones, all at min_lr
    lr_changes: str = "step"  # or "epoch": an epoch keeps the rate of its first step
    layer_decay: float = 1.0  # a layer's rate in that of the layer behind it; the head has the whole rate
    optimizer: str = "adamw"  # or "lamb"
    weight_decay: float = 0.05  # of matrices and kernels
    beta1: float = 0.9  # of the optimizer
    beta2: float = 0.999  # of the optimizer
    eps: float = 1e-8  # of the optimizer
    loss: str = "cross_entropy"  # or "bce": a binary one for each class, with the same soft targets
    clip: float = 0.0  # largest norm of the gradient; 0 = not clipped
    drop_path: float = 0.1  # of the network's last block
    drop_path_rates: str = "linear"  # it grows from 0 at the first block; or "uniform": all blocks' (TNT)
    ema: float = 0.99996  # decay of the moving average of the weights; 0 = none is kept
    ema_share: float = 0.07  # the average's longest memory as a share of the run
    evaluate_every: int = 1  # epochs; the last is always evaluated
    init: str = ""  # where weights come from: a file, or the id of a finished run; "" = random
    teacher: str = ""  # whose answers are half of the targets: as init, "" = nobody's (hard distillation)
    teacher_network: str = ""  # of a teacher in a file: what it is, as model= has it

    def __post_init__(self) -> None:
        check_ranges(self, RANGES, "recipe")
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise unknown_name(f"recipe.{name}", getattr(self, name), valid)
        if self.teacher_network and not self.teacher:
            raise UserError("recipe.teacher_network is of the file recipe.teacher, which is not given")
        if self.warmup_epochs + self.cooldown_epochs >= self.epochs:
            raise UserError(
                f"recipe.warmup_epochs={self.warmup_epochs:g} and recipe.cooldown_epochs="
                f"{self.cooldown_epochs} leave nothing of recipe.epochs={self.epochs}"
            )


def sampling(data: DataConfig, recipe: Recipe, seed: int) -> Sampling:
    """The order of samples that a run's config asks for."""
    return Sampling(
        seed=seed,
        global_batch=recipe.global_batch,
        repeats=recipe.repeats,
        order=data.order,
        lanes=data.lanes,
        window=data.window,
        pairing_block=data.augmentation.pairing_block,
    )
