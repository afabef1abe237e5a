"""PyramidTNT: the network and its features.

B images of height H and width W; in a stage n = h·w patches, d wide, of m words, c wide; k heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tnt.block import path_draws
from tnt.config import PyramidConfig, StageConfig
from tnt.embed import resize_patch_positions
from tnt.model import Embeddings, init_linear_layers, size_of
from tnt.pyramid.block import PyramidBlock
from tnt.pyramid.embed import ConvStem, PatchAggregation, WordAggregation, resize_relative_positions

Grid = tuple[int, int]
Draws = list[Tensor | None]


class PyramidStage(nn.Module):
    """Blocks, and before them, in all stages but the first, the way from the stage before."""

    def __init__(
        self, stage: StageConfig, before: StageConfig | None, config: PyramidConfig, rates: Sequence[float]
    ) -> None:
        super().__init__()
        self.stage = stage
        if before is not None:
            self.merge_words = WordAggregation(before.c, stage.c)
            self.merge_patches = PatchAggregation(before.d, stage.d)
        self.first = before is None
        self.relative_position = nn.Parameter(torch.empty(1, stage.outer_heads, stage.edge**2, stage.keys**2))
        self.blocks = nn.ModuleList(
            PyramidBlock(stage, config.words, config.mlp_ratio, rate, inner=number < stage.with_words)
            for number, rate in enumerate(rates)
        )
        self.grad_checkpointing = False

    def forward(
        self, words: Tensor, patches: Tensor, grid: Grid, draws: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """Words and patches of the stage before → this one's; `grid` is this one's."""
        if not self.first:
            before = grid[0] * 2, grid[1] * 2
            words, patches = self.merge_words(words, before), self.merge_patches(patches, before)
        bias = self.bias(grid)
        for block, drawn in zip(self.blocks, draws, strict=True):
            inputs = words, patches, bias, grid, drawn
            if self.grad_checkpointing and torch.is_grad_enabled():
                words, patches = checkpoint(block, *inputs, use_reentrant=False)
            else:
                words, patches = block(*inputs)
        return words, patches

    def bias(self, grid: Grid) -> Tensor:
        """1, k, n, n/p²: what the heads add to the scores"""
        edges = self.stage.edge, self.stage.keys
        return resize_relative_positions(self.relative_position, edges, grid, self.stage.pooling)


class PyramidTNT(nn.Module):
    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        self.config = config
        stages = config.stages
        self.stem = ConvStem(config.channels, stages[0].c, stages[0].d)
        self.patch_position = nn.Parameter(torch.empty(1, stages[0].edge ** 2, stages[0].d))
        self.word_position = nn.Parameter(torch.empty(1, config.words, stages[0].c))
        rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").split(config.depths)
        self.stages = nn.ModuleList(
            PyramidStage(stage, before, config, of_stage.tolist())
            for stage, before, of_stage in zip(stages, (None, *stages), rates, strict=False)
        )
        self.norm = nn.LayerNorm(stages[-1].d)
        self.head = nn.Linear(stages[-1].d, config.classes) if config.classes else nn.Identity()
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """The official initialisation; LayerNorm and BatchNorm keep PyTorch's own."""
        for token in (self.patch_position, self.word_position):
            nn.init.trunc_normal_(token, std=0.02)
        init_linear_layers(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, PyramidStage):
                nn.init.normal_(module.relative_position)

    def no_weight_decay(self) -> set[str]:
        """As in the official code, which decays relative positions."""
        return {"patch_position", "word_position"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade one more forward pass for the memory of the blocks' activations."""
        for stage in self.stages:
            assert isinstance(stage, PyramidStage)
            stage.grad_checkpointing = enable

    def forward(self, images: Tensor, path_keys: Tensor | None = None) -> Tensor:
        """B, C, H, W → B, classes; `path_keys` as in TNT.forward"""
        return self.head(self.forward_features(images, path_keys).mean(dim=1))

    def forward_features(self, images: Tensor, path_keys: Tensor | None = None) -> Tensor:
        """B, C, H, W → B, n, d: the normed patches of the last stage"""
        words, patches = self._embed(images)
        for stage, *beside in self._plan(images, path_keys):
            words, patches = stage(words, patches, *beside)
        return self.norm(patches)

    def forward_intermediates(
        self, images: Tensor, depths: Iterable[int] | None = None
    ) -> dict[int, Embeddings]:
        """Patch and word embeddings after the chosen stages, unnormed; 0 is the stem's, None asks for all."""
        last = self.config.depth
        wanted = sorted(range(last + 1) if depths is None else set(depths))
        if not wanted or wanted[0] < 0 or wanted[-1] > last:
            raise ValueError(f"depths={wanted} must lie in 0 (stem) to {last} (last stage)")
        found = [self._embed(images)]
        for stage, *beside in self._plan(images, None)[: wanted[-1]]:
            found.append(stage(*found[-1], *beside))
        return {
            depth: Embeddings(patches, words.unflatten(0, (patches.shape[0], -1)))
            for depth, (words, patches) in enumerate(found)
            if depth in wanted
        }

    def grid(self, images: Tensor, depth: int = 0) -> Grid:
        """h, w: the rows and columns of patches after a stage; those of the stem are the first stage's"""
        edge = self.config.patch_size << max(0, depth - 1)
        H, W = size_of(images, self.config.channels, self.config.multiple)
        return H // edge, W // edge

    def _embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """B, C, H, W → words B·n, m, c and patches B, n, d of the first stage, with positions"""
        grid = self.grid(images)
        words, patches = self.stem(images)
        return words + self.word_position, patches + resize_patch_positions(self.patch_position, grid)

    def _plan(self, images: Tensor, path_keys: Tensor | None) -> list[tuple[nn.Module, Grid, Draws]]:
        """The stages with their grids, and what decides which paths their blocks drop: 2, B, 1+n (1 without
        words), or None where none is.
        """
        drops = self.training and self.config.drop_path > 0
        if drops and path_keys is None:
            path_keys = torch.randint(2**63 - 1, (len(images),), device=images.device)
        first, plan = 0, []
        for depth, (stage, config) in enumerate(zip(self.stages, self.config.stages, strict=True), start=1):
            grid = self.grid(images, depth)
            draws: Draws = []
            for number in range(config.blocks):
                tokens = 1 + grid[0] * grid[1] * int(number < config.with_words)
                drawn = None
                if drops and path_keys is not None:
                    places = torch.arange(first, first + 2 * tokens, device=images.device)
                    drawn = path_draws(path_keys[:, None], places.view(2, 1, tokens))
                draws.append(drawn)
                first += 2 * tokens
            plan.append((stage, grid, draws))
        return plan
