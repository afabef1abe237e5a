"""Table 4: TNT on ImageNet among other networks."""

from ablations.spec import Ablation, Cell, Peer

ABLATION = Ablation(
    table="4",
    title="TNT and other networks on ImageNet",
    why="The paper's main claim: better accuracy than transformers of the same size and cost.",
    varies=("model",),
    pairs=(("tnt_s", "deit_s"), ("tnt_b", "deit_b"), ("tnt_s_se", "tnt_s"), ("tnt_b", "tnt_s")),
    later="the README of the authors' code; TNT-Ti: the NeurIPS version of the paper",
    rows=(
        Peer("ResNet-50", {"top1": 76.2, "top5": 92.9}),
        Peer("ResNet-152", {"top1": 78.3, "top5": 94.1}),
        Peer("RegNetY-8GF", {"top1": 79.9}),
        Peer("RegNetY-16GF", {"top1": 80.4}),
        Peer("GhostNet-A", {"top1": 79.4, "top5": 94.5}),
        Peer("EfficientNet-B3", {"top1": 81.6, "top5": 94.9}),
        Peer("EfficientNet-B4", {"top1": 82.9, "top5": 96.4}),
        Cell("deit_s", ("model=timm:deit_small_patch16_224",), "DeiT-S", {"top1": 79.8}, only="paper"),
        Peer("T2T-ViT_t-14", {"top1": 80.7}),
        Cell("tnt_ti", ("model=tnt_ti",), "TNT-Ti", {"official_top1": 73.9}),
        Cell(
            "tnt_s",
            ("model=tnt_s",),
            "TNT-S",
            {"top1": 81.3, "top5": 95.6, "official_top1": 81.5, "official_top5": 95.7},
        ),
        Cell("tnt_s_se", ("model=tnt_s", "model.se=outer"), "TNT-S + SE", {"top1": 81.6, "top5": 95.7}),
        Peer("ViT-B/16", {"top1": 77.9}),
        Cell("deit_b", ("model=timm:deit_base_patch16_224",), "DeiT-B", {"top1": 81.8}, only="paper"),
        Cell(
            "tnt_b",
            ("model=tnt_b",),
            "TNT-B",
            {"top1": 82.8, "top5": 96.3, "official_top1": 82.9, "official_top5": 96.3},
        ),
    ),
)
