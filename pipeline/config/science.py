"""What decides a run's numbers: the model, the data and the recipe. Nothing here says where or how fast."""

from dataclasses import dataclass, field

from pipeline.data.augmentation.settings import MIX_GROUPS
from pipeline.data.loading.sampler import Sampling
from pipeline.data.settings import DataConfig
from pipeline.errors import UserError, unknown_name
from tnt.config import TNTConfig

TIMM = "timm:"
RATE_CHANGES = ("step", "epoch")


@dataclass(frozen=True)
class TimmConfig:
    """What may be said of any network of timm's."""

    image_size: int = 224
    classes: int = 1000
    drop_path: float = 0.0


@dataclass(frozen=True)
class ModelConfig:
    name: str = "tnt_s"  # the variant that the network started from, or timm:<name>
    network: TNTConfig | TimmConfig = field(default_factory=lambda: TNTConfig(drop_path=0.1))

    @property
    def timm_name(self) -> str | None:
        """Its name in timm; None for a network of ours."""
        return self.name.removeprefix(TIMM) if self.name.startswith(TIMM) else None


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
    weight_decay: float = 0.05  # of matrices and kernels
    beta1: float = 0.9  # of AdamW
    beta2: float = 0.999  # of AdamW
    eps: float = 1e-8  # of AdamW
    clip: float = 0.0  # largest norm of the gradient; 0 = not clipped
    drop_path: float = 0.1  # of the network's last block; it grows linearly from 0 at the first
    ema: float = 0.99996  # decay of the moving average of the weights; 0 = none is kept
    ema_share: float = 0.07  # the average's longest memory as a share of the run
    evaluate_every: int = 1  # epochs; the last is always evaluated
    init: str = ""  # where weights come from: a file, or the id of a finished run; "" = random

    def __post_init__(self) -> None:
        for name in ("epochs", "global_batch", "repeats", "evaluate_every"):
            if getattr(self, name) < 1:
                raise UserError(f"recipe.{name} is {getattr(self, name)}; it must be at least 1")
        if self.repeats > MIX_GROUPS:
            raise UserError(
                f"recipe.repeats is {self.repeats}; above {MIX_GROUPS}, images mix with themselves"
            )
        for name in ("lr", "eps"):
            if not getattr(self, name) > 0:
                raise UserError(f"recipe.{name} is {getattr(self, name)}; it must be above 0")
        for name in ("min_lr", "warmup_epochs", "warmup_lr", "cooldown_epochs", "weight_decay", "clip"):
            if not getattr(self, name) >= 0:
                raise UserError(f"recipe.{name} is {getattr(self, name)}; it must not be negative")
        for name in ("beta1", "beta2", "ema", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"recipe.{name} is {getattr(self, name)}; it must lie in [0, 1)")
        if not 0 < self.ema_share <= 1:
            raise UserError(f"recipe.ema_share is {self.ema_share}; it must lie in (0, 1]")
        if self.lr_changes not in RATE_CHANGES:
            raise unknown_name("recipe.lr_changes", self.lr_changes, RATE_CHANGES)
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
