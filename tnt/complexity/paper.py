"""The networks whose size the paper prints (arXiv 2103.00112v1), and the figures that it prints for them.

Table "pyramid" is of the authors' next paper (arXiv 2201.00978), by the README of their code.
"""

from __future__ import annotations

from dataclasses import dataclass

from tnt.config import PyramidConfig, TNTConfig, get_config


@dataclass(frozen=True)
class Row:
    """A TNT in one of the paper's tables; `None` where the table prints no figure."""

    table: str
    name: str
    config: TNTConfig | PyramidConfig
    params: float | None = None  # millions
    flops: float | None = None  # billions; the paper's FLOPs are multiply-adds


@dataclass(frozen=True)
class Baseline:
    """A network of Tables 4 or 8 that the paper compares with; `timm` is timm's name for it, if it has it.

    Table "–": rivals of later years, of which the paper prints nothing.
    """

    table: str
    name: str
    timm: str | None
    resolution: int
    params: float | None = None
    flops: float | None = None


ROWS = (
    Row("1", "TNT-S", get_config("tnt_s"), 23.8, 5.2),
    Row("1", "TNT-B", get_config("tnt_b"), 65.6, 14.1),
    Row("–", "TNT-Ti (later version)", get_config("tnt_ti"), 6.1, 1.4),
    Row("–", "TNT-S legacy form", get_config("tnt_s_legacy")),
    Row("–", "TNT-B legacy form", get_config("tnt_b_legacy")),
    Row("4", "TNT-S + SE", get_config("tnt_s", se="outer"), 24.7, 5.2),
    Row("5", "no positions", get_config("tnt_s", patch_position=False, word_position=False)),
    Row("5", "patch position only", get_config("tnt_s", word_position=False)),
    Row("5", "word position only", get_config("tnt_s", patch_position=False)),
    Row("5", "both positions", get_config("tnt_s")),
    Row("6", "1 inner head", get_config("tnt_s", inner_heads=1)),
    Row("6", "2 inner heads", get_config("tnt_s", inner_heads=2)),
    Row("6", "4 inner heads", get_config("tnt_s", inner_heads=4)),
    Row("6", "8 inner heads", get_config("tnt_s", inner_heads=8)),
    # p′ read as the word's edge in pixels with m·c held; 4 heads do not divide c = 6.
    Row("7", "p′=2 (2 inner heads)", get_config("tnt_s", word_edge=2, inner_heads=2), 23.8, 5.1),
    Row("7", "p′=4", get_config("tnt_s", word_edge=4), 23.8, 5.2),
    Row("7", "p′=8", get_config("tnt_s", word_edge=8), 25.1, 6.0),
    Row("8", "TNT-S↑384", get_config("tnt_s", image_size=384), 23.8),
    Row("8", "TNT-B↑384", get_config("tnt_b", image_size=384), 65.6),
    Row("pyramid", "PyramidTNT-Ti", get_config("pyramid_tnt_ti"), 10.6, 0.6),
    Row("pyramid", "PyramidTNT-S", get_config("pyramid_tnt_s"), 32.0, 3.3),
    Row("pyramid", "PyramidTNT-M", get_config("pyramid_tnt_m"), 85.0, 8.2),
    Row("pyramid", "PyramidTNT-B", get_config("pyramid_tnt_b"), 157.0, 16.0),
)

BASELINES = (
    Baseline("4", "ResNet-50", "resnet50", 224, 25.6, 4.1),
    Baseline("4", "ResNet-152", "resnet152", 224, 60.2, 11.5),
    Baseline("4", "RegNetY-8GF", "regnety_080", 224, 39.2, 8.0),
    Baseline("4", "RegNetY-16GF", "regnety_160", 224, 83.6, 15.9),
    Baseline("4", "GhostNet-A", None, 240, 11.9, 0.6),
    Baseline("4", "EfficientNet-B3", "tf_efficientnet_b3", 300, 12.0, 1.8),
    Baseline("4", "EfficientNet-B4", "tf_efficientnet_b4", 380, 19.0, 4.2),
    Baseline("4", "DeiT-S", "deit_small_patch16_224", 224, 22.1, 4.6),
    Baseline("4", "T2T-ViT_t-14", None, 224, 21.5, 5.2),
    Baseline("4", "ViT-B/16", "vit_base_patch16_384", 384, 86.4, 55.5),
    Baseline("4", "DeiT-B", "deit_base_patch16_224", 224, 86.4, 17.6),
    Baseline("8", "Grafit ResNet-50", "resnet50", 224, 25.6),
    Baseline("8", "Grafit RegNetY-8GF", "regnety_080", 224, 39.2),
    Baseline("8", "EfficientNet-B5", "tf_efficientnet_b5", 456, 30.0),
    Baseline("8", "ViT-B/16↑384", "vit_base_patch16_384", 384, 86.4),
    Baseline("8", "DeiT-B↑384", "deit_base_patch16_384", 384, 86.4),
    Baseline("–", "DeiT-Ti", "deit_tiny_patch16_224", 224),
    Baseline("–", "DeiT-III-S", "deit3_small_patch16_224", 224),
    Baseline("–", "Swin-T", "swin_tiny_patch4_window7_224", 224),
    Baseline("–", "PVTv2-B2", "pvt_v2_b2", 224),
)
