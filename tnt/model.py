"""Transformer in Transformer: the network and its features.

B images of height H and width W; n = h·w patches, d wide, of m words, c wide.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tnt.block import TNTBlock, path_draws
from tnt.config import TNTConfig
from tnt.embed import WordStem, WordsToPatch, resize_patch_positions
from tnt.fused.tiles import misfit

KERNELS = ("torch", "fused")


class Embeddings(NamedTuple):
    """What flows between two blocks: Z_l and Y_l of the paper."""

    patches: Tensor  # B, 1+n, d; the class token first
    words: Tensor  # B, n, m, c


class TNT(nn.Module):
    def __init__(self, config: TNTConfig) -> None:
        super().__init__()
        self.config = config
        m, c, d = config.words, config.c, config.patch_dim
        self.stem = WordStem(
            config.channels, c, config.patch_size, config.word_edge, patches_first=config.form == "official"
        )
        self.to_patch = WordsToPatch(m, c, d, bias=True, norm_each_word=False)
        self.class_token = nn.Parameter(torch.empty(1, 1, d))
        self.patch_position = _parameter((1, 1 + config.patches, d), exists=config.patch_position)
        self.word_position = _parameter((1, m, c), exists=config.word_position)
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(TNTBlock(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, config.classes) if config.classes else nn.Identity()
        self.grad_checkpointing = False
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """The official initialisation; convolution and LayerNorm keep PyTorch's own."""
        for token in (self.class_token, self.patch_position, self.word_position):
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)
        init_linear_layers(self)

    def no_weight_decay(self) -> set[str]:
        """The parameters of several dimensions that AdamW must leave alone, as in the official code."""
        return {"class_token", "patch_position", "word_position"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade one more forward pass for the memory of the blocks' activations."""
        self.grad_checkpointing = enable

    def set_kernels(self, name: str) -> None:
        """Inner blocks by PyTorch's kernels ("torch") or, on a GPU, by those of `tnt.fused` ("fused").

        The numbers are the same but for rounding. Without a GPU, and in exports, it is always PyTorch's.
        """
        if name not in KERNELS:
            raise ValueError(f"unknown kernels {name!r}; valid: {', '.join(KERNELS)}")
        if name == "fused" and (reason := misfit(self.config)):
            raise ValueError(f"no fused kernels: {reason}")
        for block in self.blocks:
            assert isinstance(block, TNTBlock)
            block.fused = name == "fused"

    def forward(self, images: Tensor, path_keys: Tensor | None = None) -> Tensor:
        """B, C, H, W → B, classes

        In training `path_keys` (B, int64) decides which paths are dropped: those of an image follow from its
        own key, whatever else is in the batch. Without it, keys come from torch's generator.
        """
        return self.head(self.forward_features(images, path_keys)[:, 0])

    def forward_features(self, images: Tensor, path_keys: Tensor | None = None) -> Tensor:
        """B, C, H, W → B, 1+n, d: the normed tokens, the class token first"""
        words, patches = self._embed(images)
        for block, drawn in zip(self.blocks, self._draws(patches, path_keys), strict=True):
            words, patches = self._run(block, words, patches, drawn)
        return self.norm(patches)

    def forward_intermediates(
        self, images: Tensor, depths: Iterable[int] | None = None
    ) -> dict[int, Embeddings]:
        """Patch and word embeddings after the chosen blocks, unnormed; 0 is the stem's, None asks for all."""
        wanted = sorted(range(self.config.depth + 1) if depths is None else set(depths))
        if not wanted or wanted[0] < 0 or wanted[-1] > self.config.depth:
            raise ValueError(f"depths={wanted} must lie in 0 (stem) to {self.config.depth} (last block)")
        words, patches = self._embed(images)
        draws = self._draws(patches, None)
        taken = {}
        for depth in range(wanted[-1] + 1):
            if depth > 0:
                words, patches = self._run(self.blocks[depth - 1], words, patches, draws[depth - 1])
            if depth in wanted:
                taken[depth] = Embeddings(patches, words.unflatten(0, (patches.shape[0], -1)))
        return taken

    def _embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """B, C, H, W → words B·n, m, c and patches B, 1+n, d, with positions (Eqs. 12–13)"""
        h, w = self.grid(images)
        words = self.stem(images)
        if self.word_position is not None:
            words = words + self.word_position
        B = images.shape[0]
        patches = torch.cat([self.class_token.expand(B, -1, -1), self.to_patch(words, batch=B)], dim=1)
        if self.patch_position is not None:
            patches = patches + resize_patch_positions(self.patch_position, (h, w))
        return words, patches

    def _draws(self, patches: Tensor, path_keys: Tensor | None) -> Sequence[Tensor | None]:
        """What decides which paths each block drops: 2, B, 1+n, or None where no block drops any."""
        depth, (B, tokens) = len(self.blocks), patches.shape[:2]
        if not (self.training and self.config.drop_path):
            return [None] * depth
        if path_keys is None:
            path_keys = torch.randint(2**63 - 1, (B,), device=patches.device)
        places = torch.arange(depth * 2 * tokens, device=patches.device).view(depth, 2, 1, tokens)
        return path_draws(path_keys[:, None], places).unbind(0)

    def _run(
        self, block: nn.Module, words: Tensor, patches: Tensor, drawn: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, words, patches, drawn, use_reentrant=False)
        return block(words, patches, drawn)

    def grid(self, images: Tensor, depth: int = 0) -> tuple[int, int]:
        """h, w: the rows and columns of patches, the same at every depth"""
        edge = self.config.patch_size
        H, W = size_of(images, self.config.channels, edge)
        return H // edge, W // edge


def _parameter(shape: tuple[int, ...], exists: bool) -> nn.Parameter | None:
    return nn.Parameter(torch.empty(shape)) if exists else None


def init_linear_layers(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def size_of(images: Tensor, channels: int, edge: int) -> tuple[int, int]:
    """H, W of B, C, H, W; refused where it is not of that many channels, or no multiple of that edge."""
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(f"images of shape {tuple(images.shape)}; this model takes B, {channels}, H, W")
    H, W = images.shape[2:]
    if H % edge or W % edge or not H or not W:
        raise ValueError(f"images of {H}×{W} pixels are not a whole number of {edge}×{edge} patches")
    return H, W
