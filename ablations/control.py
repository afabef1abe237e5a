"""A positive control: a switch named here must reach the trained network and show in the report.

The class is the patch, of nine, that a mark stands in. The official form cuts patches out before it convolves
them, so that without patch positions nothing can tell the classes apart: one guess in nine is right.
"""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="",
    title="Control: where does the mark stand?",
    why="With patch positions it must be known, without them it cannot be. A minute, on generated images.",
    base=("scale=demo", "data=marks", "recipe.epochs=4", "recipe.warmup_epochs=1", "recipe.evaluate_every=1"),
    varies=("model.patch_position",),
    rows=(
        Cell("with", ("model.patch_position=true",), "patch positions", within=(95.0, 100.0)),
        Cell("without", ("model.patch_position=false",), "no patch positions", within=(0.0, 20.0)),
    ),
)
