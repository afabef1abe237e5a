"""Networks of others beside TNT-S under one recipe, Table 3's. Any name of timm's can be a row.

The report draws their accuracy against the images/s that were measured: for TNT, multiply-adds and speed
disagree.
"""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="",
    title="TNT-S and its rivals under one recipe",
    why="Figures of papers differ in their recipes too; at equal cost the recipe must be equal.",
    varies=("model",),
    pairs=(("tnt_s", "deit3_s"), ("tnt_s", "swin_t"), ("tnt_s", "pvt_v2_b2")),
    rows=(
        Cell("tnt_s", ("model=tnt_s",), "TNT-S", only="paper"),
        Cell("deit3_s", ("model=timm:deit3_small_patch16_224",), "DeiT-III-S", only="paper"),
        Cell("swin_t", ("model=timm:swin_tiny_patch4_window7_224",), "Swin-T", only="paper"),
        Cell("pvt_v2_b2", ("model=timm:pvt_v2_b2",), "PVTv2-B2", only="paper"),
    ),
)
