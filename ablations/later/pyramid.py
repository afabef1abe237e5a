"""PyramidTNT (arXiv 2201.00978), the authors' next paper, beside TNT.

The figures are those of the README of their code; TNT-Ti's is of the NeurIPS version of TNT's paper.
"""

from ablations.spec import Ablation, Cell

RECIPE = "recipe=pyramid"

ABLATION = Ablation(
    table="",
    title="PyramidTNT and TNT on ImageNet",
    why=(
        "Four stages in place of one width, and convolutions before them: better accuracy for its cost. "
        "Epochs of warm-up (20 and 5) and the size of images differ too, as in both papers."
    ),
    varies=("model", "recipe.warmup_epochs"),
    follows=("data.image_size", "data.augmentation.image_size"),
    pairs=(("pyramid_ti", "tnt_ti"), ("pyramid_s", "tnt_s"), ("pyramid_b", "tnt_b"), ("pyramid_m", "tnt_b")),
    rows=(
        Cell("tnt_ti", ("model=tnt_ti",), "TNT-Ti", {"top1": 73.9}),
        Cell("pyramid_ti", ("model=pyramid_tnt_ti", RECIPE), "PyramidTNT-Ti", {"top1": 75.2}),
        Cell("tnt_s", ("model=tnt_s",), "TNT-S", {"top1": 81.5}),
        Cell("pyramid_s", ("model=pyramid_tnt_s", RECIPE), "PyramidTNT-S", {"top1": 82.0}),
        Cell("tnt_b", ("model=tnt_b",), "TNT-B", {"top1": 82.9}),
        Cell("pyramid_m", ("model=pyramid_tnt_m", RECIPE), "PyramidTNT-M", {"top1": 83.5}),
        Cell("pyramid_b", ("model=pyramid_tnt_b", RECIPE), "PyramidTNT-B", {"top1": 84.1}),
    ),
)
