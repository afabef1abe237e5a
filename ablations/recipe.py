"""A control of the recipe: DeiT by this code, beside what DeiT's paper reports (arXiv 2012.12877, Table 7).

Its recipe is the one that TNT takes over, so that a figure of TNT's means more where these come out.
"""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="",
    title="Control: DeiT by this recipe, beside DeiT's own paper",
    why="If the recipe is DeiT's, its networks must come out as their authors report them.",
    varies=("model",),
    rows=(
        Cell("deit_ti", ("model=timm:deit_tiny_patch16_224",), "DeiT-Ti", {"top1": 72.2}, only="paper"),
        Cell("deit_s", ("model=timm:deit_small_patch16_224",), "DeiT-S", {"top1": 79.8}, only="paper"),
    ),
)
