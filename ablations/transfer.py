"""Table 8: what is learned on ImageNet, taken elsewhere at 384 × 384."""

from ablations.spec import Ablation, Cell, Peer

# The columns of Table 8: the data, and the recipe that §3.5 gives for them.
COLUMNS = {
    "imagenet": "finetune_384",
    "cifar10": "finetune_cifar",
    "cifar100": "finetune_cifar",
    "flowers": "finetune_fine_grained",
    "pets": "finetune_fine_grained",
}


def fine_tunes(model: str, label: str, top1: tuple[float, ...]) -> tuple[Cell, ...]:
    """A row of Table 8: one pre-trained network on each set."""
    return tuple(
        Cell(
            f"{model}-{data}",
            (f"model={model}", f"data={data}", f"recipe={recipe}"),
            f"{label}↑384",
            {"top1": value},
            starts_from=(f"model={model}",),
            column=data,
        )
        for (data, recipe), value in zip(COLUMNS.items(), top1, strict=True)
    )


def peer(label: str, *top1: float | None) -> Peer:
    return Peer(label, {data: value for data, value in zip(COLUMNS, top1, strict=True) if value is not None})


ABLATION = Ablation(
    table="8",
    title="Fine-tuning at 384 × 384",
    why="Better features are better on small sets too. Each of them starts from a run of Table 4.",
    varies=("model", "data", "recipe"),
    rows=(
        peer("Grafit ResNet-50", 79.6, None, None, 98.2, None),
        peer("Grafit RegNetY-8GF", None, None, None, 99.1, None),
        peer("EfficientNet-B5", 83.6, 98.7, 91.1, 98.5, None),
        peer("ViT-B/16↑384", 77.9, 98.1, 87.1, 89.5, 93.8),
        peer("DeiT-B↑384", 83.1, 99.1, 90.8, 98.4, None),
        *fine_tunes("tnt_s", "TNT-S", (83.1, 98.7, 90.1, 98.8, 94.7)),
        *fine_tunes("tnt_b", "TNT-B", (83.9, 99.1, 91.1, 99.0, 95.0)),
    ),
)
