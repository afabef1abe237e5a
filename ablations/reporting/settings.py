"""Tables 1 to 3, which nobody trains for: what the paper prints and what the configuration says."""

from dataclasses import dataclass
from typing import Any

from ablations.reporting.asked import Asked
from ablations.reporting.sizes import Sizes
from pipeline.config import RunConfig
from pipeline.sources import TABLE_2
from tnt.config import VARIANTS


@dataclass(frozen=True)
class Setting:
    row: str
    name: str
    paper: str
    ours: str

    @property
    def agrees(self) -> bool:
        return self.paper == self.ours


@dataclass(frozen=True)
class SettingTable:
    number: str
    title: str
    settings: tuple[Setting, ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"table{self.number}"


# Printed values, by row; nothing here is read from the code that they are compared with.
VARIANTS_PRINTED: dict[str, dict[str, int | float]] = {
    "TNT-S": {"depth": 12, "c": 24, "inner heads": 4, "inner r": 4, "d": 384, "outer heads": 6, "outer r": 4,
              "params (M)": 23.8, "FLOPs (B)": 5.2},
    "TNT-B": {"depth": 12, "c": 40, "inner heads": 4, "inner r": 4, "d": 640, "outer heads": 10, "outer r": 4,
              "params (M)": 65.6, "FLOPs (B)": 14.1},
}  # fmt: skip
DATA_PRINTED = {
    "imagenet": (1_281_167, 50_000, 1000),
    "flowers": (2_040, 6_149, 102),
    "pets": (3_680, 3_669, 37),
    "cifar10": (50_000, 10_000, 10),
    "cifar100": (50_000, 10_000, 100),
}
RECIPE_PRINTED: dict[str, Any] = {
    "epochs": 300,
    "batch size": 1024,
    "learning rate": 1e-3,
    "weight decay": 0.05,
    "warm-up epochs": 5,
    "label smoothing": 0.1,
    "drop path": 0.1,
    "repeated augmentation": True,
}
NAMES = {"TNT-S": "tnt_s", "TNT-B": "tnt_b"}


def setting_tables(pretraining: RunConfig, transfers: list[Asked], sizes: Sizes) -> list[SettingTable]:
    """`pretraining` is a run of Table 4; `transfers` are those of Table 8, one a set at least."""
    return [_variants(sizes), _data(transfers), _recipe(pretraining)]


def _variants(sizes: Sizes) -> SettingTable:
    found = []
    for row, printed in VARIANTS_PRINTED.items():
        network = VARIANTS[NAMES[row]]
        size = sizes.of(network)
        params = size.params_frozen
        ours = {
            "depth": network.depth, "c": network.c, "inner heads": network.inner_heads,
            "inner r": network.mlp_ratio, "d": network.patch_dim, "outer heads": network.outer_heads,
            "outer r": network.mlp_ratio,
            "params (M)": "not counted" if params is None else round(params / 1e6, 1),
            "FLOPs (B)": "not counted" if size.macs is None else round(size.macs / 1e9, 1),
        }  # fmt: skip
        found += [Setting(row, name, str(value), str(ours[name])) for name, value in printed.items()]
    return SettingTable(
        "1",
        "Variants of TNT",
        tuple(found),
        (
            "params with the tensor of n·d that the authors' code registers and never reads: so the paper",
            "FLOPs are multiply-adds; the paper's depth is 12 (some extracts of Table 1 print 1)",
        ),
    )


def _data(transfers: list[Asked]) -> SettingTable:
    classes = {each.config.data.name: each.config.data.classes for each in transfers}
    found = []
    for name, (train, test, of) in DATA_PRINTED.items():
        packed = TABLE_2[name].samples
        found += [
            Setting(name, "train", f"{train:,}", f"{packed['train']:,}"),
            Setting(name, "test", f"{test:,}", f"{packed['validation']:,}"),
            Setting(name, "classes", str(of), str(classes.get(name, "no config"))),
        ]
    return SettingTable(
        "2", "Data sets", tuple(found), ("ours: what `pipeline/shards.py make` insists on, and the config",)
    )


def _recipe(config: RunConfig) -> SettingTable:
    recipe = config.recipe
    ours: dict[str, Any] = {
        "epochs": recipe.epochs,
        "batch size": recipe.global_batch,
        "learning rate": recipe.lr,
        "weight decay": recipe.weight_decay,
        "warm-up epochs": recipe.warmup_epochs,
        "label smoothing": config.data.augmentation.smoothing,
        "drop path": recipe.drop_path,
        "repeated augmentation": recipe.repeats > 1,
    }
    found = [
        Setting("pre-training", name, _said(value), _said(ours[name]))
        for name, value in RECIPE_PRINTED.items()
    ]
    return SettingTable(
        "3",
        "Training",
        tuple(found),
        ("the optimizer is AdamW and the decay a cosine: there are no others here",),
    )


def _said(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:g}"
