"""Squeeze-and-excitation: with and without (Table 4), and where the gate sits."""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="",
    title="Squeeze-and-excitation in the inner and the outer transformer",
    why=(
        "§2.4 adds the gate without saying where; the authors' code has it in the outer transformer. "
        "Table 4 gives the accuracy without it and with that one."
    ),
    varies=("model.se",),
    pairs=(("outer", "none"), ("inner", "none"), ("both", "none"), ("outer", "inner")),
    rows=(
        Cell("none", ("model.se=none",), "none", {"top1": 81.3, "top5": 95.6}),
        Cell("outer", ("model.se=outer",), "outer (TNT-S + SE)", {"top1": 81.6, "top5": 95.7}),
        Cell("inner", ("model.se=inner",), "inner"),
        Cell("both", ("model.se=both",), "inner and outer"),
    ),
)
