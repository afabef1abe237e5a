"""Table 6: how many heads the inner transformer has."""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="6",
    title="Heads of the inner transformer",
    why="Words are 24 wide: the more heads, the narrower each, and the paper finds the best at 2 to 4.",
    varies=("model.inner_heads",),
    rows=(
        Cell("1", ("model.inner_heads=1",), "1", {"top1": 81.0}),
        Cell("2", ("model.inner_heads=2",), "2", {"top1": 81.3}),
        Cell("4", ("model.inner_heads=4",), "4", {"top1": 81.3}),
        Cell("8", ("model.inner_heads=8",), "8", {"top1": 81.1}),
    ),
)
