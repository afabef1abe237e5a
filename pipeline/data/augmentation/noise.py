"""Erasing's normal noise: a function of (seed, epoch, position, pixel), the same on every device.

torch's own generators depend on the device (on CUDA even on its number of processors) and on how a batch is
split. Philox4x32-10 (Salmon et al., SC 2011) in int64 tensors does not: integers are equal everywhere, the
normals differ at most by the rounding of log and cos.
"""

import math

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def philox4x32(counter: tuple[Tensor, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four 32-bit words, in int64 tensors, for each counter of four 32-bit words."""
    device = counter[0].device
    even, odd = torch.stack(counter[::2]), torch.stack(counter[1::2])  # words 0 and 2, words 1 and 3
    keys = [
        [[word + round * step & MASK] for word, step in zip(key, WEYL, strict=True)]
        for round in range(ROUNDS)
    ]
    multipliers, *rounds = torch.tensor([[[m] for m in MULTIPLIERS], *keys]).to(device, non_blocking=True)
    for round_key in rounds:
        # Products wrap modulo 2^64; the mask removes the sign bits that the arithmetic shift fills in.
        product = (even * multipliers).flip(0)
        even, odd = (product >> 32 & MASK) ^ odd ^ round_key, product & MASK
    return even[0], odd[0], even[1], odd[1]


def normals(pixel: Tensor, position: Tensor, key: tuple[int, int]) -> Tensor:
    """float32 [P, 3] for P pairs of a pixel's index in its box and its view's position (Box and Muller)."""
    zero = torch.zeros_like(pixel)
    words = philox4x32((pixel, position & MASK, position >> 32 & MASK, zero), key)
    # 24 bits each, moved off 0 by half a step so that the logarithm is finite.
    u = torch.stack([((word >> 8).float() + 0.5) * 2.0**-24 for word in words])
    radius, angle = torch.sqrt(-2 * torch.log(u[:2])), 2 * math.pi * u[2:]
    return torch.stack(
        [radius[0] * torch.cos(angle[0]), radius[0] * torch.sin(angle[0]), radius[1] * torch.cos(angle[1])], 1
    )
