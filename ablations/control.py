"""A positive control: a switch named here must reach the trained network and show in the report.

The class is the patch, of four, that a mark stands in. The official form cuts patches out before it convolves
them, so that without patch positions nothing can tell the classes apart: one guess in four is right.

With them it is learned late and suddenly: when training begins, the position is a fiftieth of a patch's
embedding. With this batch size and a constant learning rate it is learned within 200 to 500 of the 900 steps.
With a single outer head one seed of three never learned it.
"""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="",
    title="Control: where does the mark stand?",
    why="With patch positions it must be known, without them it cannot be. A minute, on generated images.",
    base=(
        "scale=demo",
        "data=marks",
        "model=tnt_ti",
        "model.patch_size=8",
        "data.augmentation.smoothing=0",
        "recipe.global_batch=128",
        "recipe.epochs=56",
        "recipe.warmup_epochs=2",
        "recipe.lr=3e-3",
        "recipe.min_lr=3e-3",
        "recipe.beta2=0.95",
        "recipe.weight_decay=0",
        "recipe.ema=0",
        "recipe.evaluate_every=28",
        "engine.micro_batch=128",
        "engine.checkpoint_every=28",
    ),
    varies=("model.patch_position",),
    rows=(
        Cell("with", ("model.patch_position=true",), "patch positions", within=(95.0, 100.0)),
        Cell("without", ("model.patch_position=false",), "no patch positions", within=(0.0, 40.0)),
    ),
)
