"""A control of the switches: each setting that a table varies, beside the plain network.

Untrained, with all weights in common that both have, each must give another loss: the report says so
without a run. Where these rows are trained, for an epoch, a run must have the parameters and multiply-adds
that were counted, and another loss or gradient at the first step. There the heads' number moves the gradient
alone: before anything is learned, each of them attends to all words alike.
"""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="",
    title="Control: does each switch reach the network?",
    why="A setting that changed nothing would make rows equal for a reason that is not the paper's.",
    base=(
        "scale=demo",
        "model=tnt_s",
        "recipe.epochs=1",
        "recipe.warmup_epochs=0",
        "recipe.ema=0",
    ),
    varies=("model",),
    rows=(
        Cell("plain", (), "TNT-S"),
        Cell("heads", ("model.inner_heads=1",), "1 inner head"),
        Cell("edge", ("model.word_edge=8",), "p′ = 8"),
        Cell("patch_position", ("model.patch_position=false",), "no patch positions"),
        Cell("word_position", ("model.word_position=false",), "no word positions"),
        Cell("se", ("model.se=outer",), "SE, outer"),
        Cell("larger", ("model=tnt_b",), "TNT-B"),
    ),
)
