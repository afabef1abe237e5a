"""Dropped paths of timm's networks: by the key of each image, as a TNT drops its own."""

import torch
from torch import Tensor, nn

from tnt.block import path_draws

CALLS = 16  # of one drop path in a forward pass, at most


class KeyedDropPath(nn.Module):
    """timm's DropPath, but what it drops follows from the key of each image, as in a TNT.

    Sequences stand image by image where there are several of an image. A network may call one module several
    times: each call has draws of its own. Checkpointing repeats the calls of a module after the forward pass,
    in the same order.
    """

    def __init__(self, like: nn.Module, number: int) -> None:
        super().__init__()
        self.drop_prob, self.scale = float(like.drop_prob), bool(like.scale_by_keep)  # type: ignore[arg-type]
        self.number = number
        self.calls = 0
        self.keys: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.drop_prob:
            return x
        assert self.keys is not None, "drop paths get their keys from the whole network's call"
        tokens, rest = divmod(len(x), len(self.keys))
        assert not rest, f"{len(x)} sequences of {len(self.keys)} images"
        assert self.calls < CALLS, f"more than {CALLS} calls in a forward pass"
        first = (self.number * CALLS + self.calls) << 16
        self.calls += 1
        drawn = path_draws(self.keys[:, None], torch.arange(first, first + tokens, device=x.device))
        kept = (drawn >= round(self.drop_prob * 2**32)).to(x.dtype)
        if self.scale:
            kept = kept / (1 - self.drop_prob)
        return x * kept.view(-1, *[1] * (x.ndim - 1))


def key_drop_paths(model: nn.Module) -> nn.Module:
    """A network of timm's that takes the keys of images after the images, and drops paths by them."""
    from timm.layers import DropPath

    found = [(name, module) for name, module in model.named_modules() if isinstance(module, DropPath)]
    for number, (name, module) in enumerate(found):
        model.set_submodule(name, KeyedDropPath(module, number))
    model.register_forward_pre_hook(_give_keys)
    model.register_forward_hook(_count_anew)
    return model


def _give_keys(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    images, *given = inputs
    if model.training:
        keys = given[0] if given else torch.randint(2**63 - 1, (len(images),), device=images.device)
        for path in _drop_paths(model):
            path.keys, path.calls = keys, 0
    return (images,)


def _count_anew(model: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    for path in _drop_paths(model):
        path.calls = 0


def _drop_paths(model: nn.Module) -> list[KeyedDropPath]:
    return [module for module in model.modules() if isinstance(module, KeyedDropPath)]
