"""Table 7: how large a word is."""

from ablations.spec import Ablation, Cell

ABLATION = Ablation(
    table="7",
    title="p′, the edge of a word in pixels",
    why=(
        "Smaller words are more and narrower: m·c is held at d, which alone gives the sizes of Table 7 "
        "(p′ read as the word's edge). Four heads do not divide c = 6, so p′ = 2 has two."
    ),
    varies=("model.word_edge",),
    follows=("model.word_dim", "model.inner_heads"),
    rows=(
        Cell("2", ("model.word_edge=2", "model.inner_heads=2"), "2", {"top1": 81.0}),
        Cell("4", ("model.word_edge=4",), "4", {"top1": 81.3}),
        Cell("8", ("model.word_edge=8",), "8", {"top1": 81.1}),
    ),
)
