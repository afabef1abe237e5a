"""How each published TNT names its tensors, and the way to and from our names.

A template's `{leaf}` is `weight` or `bias`. Where a format keeps queries and keys apart from values, two
templates stand for our one tensor, in the order of its rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tnt.weights.tensors import COUNTER, State

# What a module of ours holds; the last three are BatchNorm's.
LEAVES = ("weight", "bias", "running_mean", "running_var", COUNTER)


@dataclass(frozen=True)
class Format:
    name: str
    mark: str  # the tensor whose presence tells this format from the others
    top: Mapping[str, tuple[str, ...]]  # our module or parameter → theirs
    block: Mapping[str, tuple[str, ...]]  # the same inside a block
    blocks: str = "blocks.#"  # how the names in a block begin; # is a number
    own_blocks: str = "blocks.#"  # the same for ours
    first: int = 2  # of the thirds of queries, keys and values: how many stand in the first of two tensors
    square_word_position: bool = False  # (1, c, √m, √m) instead of (1, m, c)
    unused: tuple[str, ...] = ()  # stored, but nothing reads it

    def to_ours(self, foreign: State) -> State:
        """Their tensors under our names; a tensor that the format does not know is an error."""
        parts: dict[str, list[Tensor | None]] = {}
        unknown = []
        for name, tensor in foreign.items():
            if name in self.unused:
                continue
            found = self._our_name(name)
            if found is None:
                unknown.append(name)
                continue
            ours, part, count = found
            parts.setdefault(ours, [None] * count)[part] = tensor
        if unknown:
            raise ValueError(f"not {self.name} weights of a TNT: unknown tensors {some(unknown)}")
        halves = [ours for ours, tensors in parts.items() if any(t is None for t in tensors)]
        if halves:
            raise ValueError(
                f"incomplete {self.name} weights: no queries and keys, or no values, for {some(halves)}"
            )
        for ours, tensors in parts.items():
            if len(shapes := {tuple(t.shape[1:]) for t in tensors if t is not None}) > 1:
                raise ValueError(f"the parts of {ours} have different widths: {sorted(shapes)}")
        state = {ours: _joined([t for t in tensors if t is not None]) for ours, tensors in parts.items()}
        if self.square_word_position and "word_position" in state:
            check_rank(state, "word_position", 4)
            state["word_position"] = state["word_position"].flatten(2).transpose(1, 2)
        return state

    def from_ours(self, state: State) -> State:
        """Our tensors under their names; the queries' and keys' rows are split from the values'."""
        foreign: State = {}
        for name, tensor in state.items():
            templates = self._templates(name)
            if self.square_word_position and name == "word_position":
                edge = round(tensor.shape[1] ** 0.5)
                tensor = tensor.transpose(1, 2).unflatten(2, (edge, edge))
            pieces: tuple[Tensor, ...] = (tensor,)
            if len(templates) > 1:
                third = tensor.shape[0] // 3
                pieces = tensor.split([third * self.first, third * (3 - self.first)])
            for theirs, piece in zip(templates, pieces, strict=True):
                foreign[theirs] = piece.contiguous()
        return foreign

    def _templates(self, ours: str) -> list[str]:
        numbers, rest = _split(self.own_blocks, ours)
        module, _, leaf = rest.rpartition(".")
        module, leaf = (module, leaf) if leaf in LEAVES else (rest, "")
        table = self.block if numbers else self.top
        if module not in table:
            raise ValueError(f"the {self.name} format has no place for {ours}")
        start = _numbered(self.blocks, numbers)
        return [start + template.format(leaf=leaf) for template in table[module]]

    def _our_name(self, theirs: str) -> tuple[str, int, int] | None:
        """Our name for a tensor of theirs, which part of ours it is, and of how many."""
        numbers, rest = _split(self.blocks, theirs)
        start = _numbered(self.own_blocks, numbers)
        table = self.block if numbers else self.top
        for module, templates in table.items():
            for part, template in enumerate(templates):
                for leaf in LEAVES if "{leaf}" in template else ("",):
                    if template.format(leaf=leaf) == rest:
                        return start + module + (f".{leaf}" if leaf else ""), part, len(templates)
        return None


def check_rank(state: State, name: str, rank: int) -> None:
    if name in state and state[name].ndim != rank:
        raise ValueError(f"{name} has shape {tuple(state[name].shape)}; it must have {rank} dimensions")


def _split(blocks: str, name: str) -> tuple[list[str], str]:
    """`blocks.3.inner.norm1.weight` → [3], inner.norm1.weight; no numbers outside a block"""
    inside = re.fullmatch(re.escape(blocks).replace(r"\#", r"(\d+)") + r"\.(.+)", name)
    if inside is None:
        return [], name
    *numbers, rest = inside.groups()
    return numbers, rest


def _numbered(blocks: str, numbers: list[str]) -> str:
    for number in numbers:
        blocks = blocks.replace("#", number, 1)
    return f"{blocks}." if numbers else ""


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def same(*modules: str) -> dict[str, tuple[str, ...]]:
    return {module: (f"{module}.{{leaf}}",) for module in modules}


_TRANSFORMER = (
    "norm1",
    "attn.qkv",
    "attn.proj",
    "norm2",
    "mlp.fc1",
    "mlp.fc2",
    "gate.norm",
    "gate.fc1",
    "gate.fc2",
)
_TO_PATCH = ("to_patch.norm_words", "to_patch.proj", "to_patch.norm_patch")
_TOKENS = ("class_token", "patch_position", "word_position")

TNT = Format(
    name="tnt",
    mark="stem.conv.weight",
    top=same("stem.conv", *_TO_PATCH, "norm", "head") | {name: (name,) for name in _TOKENS},
    block=same(*(f"{place}.{module}" for place in ("inner", "outer") for module in _TRANSFORMER), *_TO_PATCH),
)

OFFICIAL = Format(
    name="official",
    mark="patch_embed.proj.weight",
    top={
        "stem.conv": ("patch_embed.proj.{leaf}",),
        "to_patch.norm_words": ("proj_norm1.{leaf}",),
        "to_patch.proj": ("proj.{leaf}",),
        "to_patch.norm_patch": ("proj_norm2.{leaf}",),
        "class_token": ("cls_token",),
        "patch_position": ("outer_pos",),
        "word_position": ("inner_pos",),
        "norm": ("norm.{leaf}",),
        "head": ("head.{leaf}",),
    },
    block={
        "inner.norm1": ("inner_norm1.{leaf}",),
        "inner.attn.qkv": ("inner_attn.qk.{leaf}", "inner_attn.v.{leaf}"),
        "inner.attn.proj": ("inner_attn.proj.{leaf}",),
        "inner.norm2": ("inner_norm2.{leaf}",),
        "inner.mlp.fc1": ("inner_mlp.fc1.{leaf}",),
        "inner.mlp.fc2": ("inner_mlp.fc2.{leaf}",),
        "to_patch.norm_words": ("proj_norm1.{leaf}",),
        "to_patch.proj": ("proj.{leaf}",),
        "to_patch.norm_patch": ("proj_norm2.{leaf}",),
        "outer.norm1": ("outer_norm1.{leaf}",),
        "outer.attn.qkv": ("outer_attn.qk.{leaf}", "outer_attn.v.{leaf}"),
        "outer.attn.proj": ("outer_attn.proj.{leaf}",),
        "outer.norm2": ("outer_norm2.{leaf}",),
        "outer.mlp.fc1": ("outer_mlp.fc1.{leaf}",),
        "outer.mlp.fc2": ("outer_mlp.fc2.{leaf}",),
        "outer.gate.norm": ("se_layer.fc.0.{leaf}",),
        "outer.gate.fc1": ("se_layer.fc.1.{leaf}",),
        "outer.gate.fc2": ("se_layer.fc.3.{leaf}",),
    },
    unused=("outer_tokens",),
)

TIMM = Format(
    name="timm",
    mark="pixel_embed.proj.weight",
    top={
        "stem.conv": ("pixel_embed.proj.{leaf}",),
        "to_patch.norm_words": ("norm1_proj.{leaf}",),
        "to_patch.proj": ("proj.{leaf}",),
        "to_patch.norm_patch": ("norm2_proj.{leaf}",),
        "class_token": ("cls_token",),
        "patch_position": ("patch_pos",),
        "word_position": ("pixel_pos",),
        "norm": ("norm.{leaf}",),
        "head": ("head.{leaf}",),
    },
    block={
        "inner.norm1": ("norm_in.{leaf}",),
        "inner.attn.qkv": ("attn_in.qk.{leaf}", "attn_in.v.{leaf}"),
        "inner.attn.proj": ("attn_in.proj.{leaf}",),
        "inner.norm2": ("norm_mlp_in.{leaf}",),
        "inner.mlp.fc1": ("mlp_in.fc1.{leaf}",),
        "inner.mlp.fc2": ("mlp_in.fc2.{leaf}",),
        "to_patch.norm_words": ("norm1_proj.{leaf}",),
        "to_patch.proj": ("proj.{leaf}",),
        "to_patch.norm_patch": ("norm2_proj.{leaf}",),
        "outer.norm1": ("norm_out.{leaf}",),
        "outer.attn.qkv": ("attn_out.qk.{leaf}", "attn_out.v.{leaf}"),
        "outer.attn.proj": ("attn_out.proj.{leaf}",),
        "outer.norm2": ("norm_mlp.{leaf}",),
        "outer.mlp.fc1": ("mlp.fc1.{leaf}",),
        "outer.mlp.fc2": ("mlp.fc2.{leaf}",),
    },
    square_word_position=True,
)

MMPRETRAIN = Format(
    name="mmpretrain",
    mark="backbone.pixel_embed.proj.weight",
    top={
        "stem.conv": ("backbone.pixel_embed.proj.{leaf}",),
        "to_patch.norm_words": ("backbone.norm1_proj.{leaf}",),
        "to_patch.proj": ("backbone.projection.{leaf}",),
        "to_patch.norm_patch": ("backbone.norm2_proj.{leaf}",),
        "class_token": ("backbone.cls_token",),
        "patch_position": ("backbone.patch_pos",),
        "word_position": ("backbone.pixel_pos",),
        "norm": ("backbone.norm.{leaf}",),
        "head": ("head.fc.{leaf}",),
    },
    block={
        f"{ours}.{module}": (f"{ours}_block.{theirs}",)
        for ours in ("inner", "outer")
        for module, theirs in {
            "norm1": "norm_attn.{leaf}",
            "attn.qkv": "attn.attn.in_proj_{leaf}",
            "attn.proj": "attn.attn.out_proj.{leaf}",
            "norm2": "norm_ffn.{leaf}",
            "mlp.fc1": "ffn.layers.0.0.{leaf}",
            "mlp.fc2": "ffn.layers.1.{leaf}",
        }.items()
    }
    | {"to_patch.norm_words": ("norm_proj.{leaf}",), "to_patch.proj": ("projection.{leaf}",)},
    blocks="backbone.layers.#",
    square_word_position=True,
)

FORMATS = {format.name: format for format in (TNT, OFFICIAL, TIMM, MMPRETRAIN)}
