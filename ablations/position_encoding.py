"""Table 5: which positions the network is told."""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="5",
    title="Position encodings of patches and of words",
    why="A patch's place is in the image, a word's in its patch: each is worth something without the other.",
    varies=("model.patch_position", "model.word_position"),
    rows=(
        Cell(
            "none",
            ("model.patch_position=false", "model.word_position=false"),
            "none",
            {"top1": 80.5},
        ),
        Cell("patch", ("model.patch_position=true", "model.word_position=false"), "patch", {"top1": 80.8}),
        Cell("word", ("model.patch_position=false", "model.word_position=true"), "word", {"top1": 80.7}),
        Cell(
            "both",
            ("model.patch_position=true", "model.word_position=true"),
            "patch and word",
            {"top1": 81.3},
        ),
    ),
)
