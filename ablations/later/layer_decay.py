"""Fine-tuning with slower rates for the layers that are further from the head (arXiv 2106.08254)."""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="",
    title="Fine-tuning at 384: layer-wise decay of the learning rate",
    why="Do early layers, which have learned most, gain from smaller steps?",
    varies=("recipe.layer_decay",),
    rows=tuple(
        Cell(
            f"decay-{int(100 * decay)}",
            ("recipe=finetune_384", f"recipe.layer_decay={decay}"),
            f"{decay:g}",
            starts_from=("model=tnt_s",),
        )
        for decay in (1.0, 0.85, 0.75, 0.65)
    ),
)
