"""How the authors' code names the tensors of a PyramidTNT, and how we do."""

from tnt.weights.formats import Format, same

_TRANSFORMER = ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
_STEM = {"shared": (0, 1), "words": (0, 1), "patches": (0, 1, 3, 4, 6, 7)}  # convolutions and their norms
_TO_PATCH = {"norm_words": "proj_norm1", "proj": "proj", "norm_patch": "proj_norm2"}
_POOLED = {"q": "q", "kv": "kv", "pool_proj": "linear", "pool_norm": "norm"}
_STAGES = range(4)
_MERGES = [
    (stage, what, part) for stage in _STAGES[1:] for what in ("words", "patches") for part in ("norm", "conv")
]
_POSITIONS = ("patch_position", "word_position", *(f"stages.{stage}.relative_position" for stage in _STAGES))

OURS = Format(
    name="tnt",
    mark="stem.shared.0.weight",
    top=same(
        *(f"stem.{part}.{number}" for part, numbers in _STEM.items() for number in numbers),
        *(f"stages.{stage}.merge_{what}.{part}" for stage, what, part in _MERGES),
        *("norm", "head"),
    )
    | {name: (name,) for name in _POSITIONS},
    block=same(
        *(f"{place}.{module}" for place in ("inner", "outer") for module in _TRANSFORMER),
        "inner.attn.qkv",
        *(f"to_patch.{module}" for module in _TO_PATCH),
        *(f"outer.attn.{module}" for module in _POOLED),
    ),
    blocks="stages.#.blocks.#",
    own_blocks="stages.#.blocks.#",
)

_THEIR_STEM = {"shared": "common_conv", "words": "inner_convs", "patches": "outer_convs"}
_THEIR_MERGES = {"words": "word_merges", "patches": "sentence_merges"}
_THEIR_PARTS = {"norm": "norm", "conv": "conv.0"}

OFFICIAL = Format(
    name="official",
    mark="patch_embed.common_conv.0.weight",
    top={
        **{
            f"stem.{part}.{number}": (f"patch_embed.{_THEIR_STEM[part]}.{number}.{{leaf}}",)
            for part, numbers in _STEM.items()
            for number in numbers
        },
        **{
            f"stages.{stage}.merge_{what}.{part}": (
                f"{_THEIR_MERGES[what]}.{stage - 1}.{_THEIR_PARTS[part]}.{{leaf}}",
            )
            for stage, what, part in _MERGES
        },
        **{f"stages.{stage}.relative_position": (f"stages.{stage}.relative_pos",) for stage in _STAGES},
        "patch_position": ("outer_pos",),
        "word_position": ("inner_pos",),
        "norm": ("norm.{leaf}",),
        "head": ("head.{leaf}",),
    },
    block={
        **{
            f"{place}.{module}": (f"{place}_{module}.{{leaf}}",)
            for place in ("inner", "outer")
            for module in _TRANSFORMER
        },
        "inner.attn.qkv": ("inner_attn.q.{leaf}", "inner_attn.kv.{leaf}"),
        **{f"to_patch.{ours}": (f"{theirs}.{{leaf}}",) for ours, theirs in _TO_PATCH.items()},
        **{f"outer.attn.{ours}": (f"outer_attn.{theirs}.{{leaf}}",) for ours, theirs in _POOLED.items()},
    },
    blocks="stages.#.blocks.#",
    own_blocks="stages.#.blocks.#",
    first=1,
)

PYRAMID_FORMATS = {format.name: format for format in (OURS, OFFICIAL)}
