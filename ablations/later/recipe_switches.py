"""What those who came after changed of the recipe, one thing at a time.

Hard distillation needs a teacher that is there, so it is a setting beside a table's:
`python pipeline/launch.py ablation=imagenet cells=tnt_s recipe.teacher=<a run's id, or a file>`.
"""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="",
    title="Switches of the recipe that followers use",
    why="Does a gap between networks hang on one recipe? LAMB's steps follow the norm of the weights, so its "
    "rate is another one: DeiT III's (arXiv 2204.07118), 3e-3.",
    varies=("recipe.loss", "recipe.optimizer", "recipe.drop_path_rates"),
    follows=("recipe.lr",),
    base=("model=tnt_s",),
    pairs=(("bce", "plain"), ("lamb", "plain"), ("uniform", "plain")),
    rows=(
        Cell("plain", (), "Table 3's recipe"),
        Cell("bce", ("recipe.loss=bce",), "BCE instead of cross-entropy"),
        Cell("lamb", ("recipe.optimizer=lamb", "recipe.lr=3e-3"), "LAMB instead of AdamW"),
        Cell(
            "uniform", ("recipe.drop_path_rates=uniform",), "one drop-path rate for all blocks", only="paper"
        ),
    ),
)
