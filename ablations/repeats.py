"""A control of the judge: one network, trained with six seeds.

The report splits a row's seeds into two groups, between which there is no difference, and then plants one: of
a group's stored answers so many are set right. The first must not be found and the second must.
"""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="",
    title="Control: six seeds of one network",
    why="The judge must find nothing between two groups of seeds, and what is planted in their answers.",
    base=(
        "scale=demo",
        "model=tnt_s",
        "model.depth=1",
        "recipe.epochs=6",
        "recipe.warmup_epochs=1",
        "recipe.ema=0",
    ),
    varies=(),
    rows=(Cell("plain", (), "TNT-S"),),
    seeds=(0, 1, 2, 3, 4, 5),
)
