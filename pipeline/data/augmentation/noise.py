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
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # Products wrap modulo 2^64; the mask removes the sign bits that the arithmetic shift fills in.
        left, right = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (right >> 32 & MASK) ^ c1 ^ k0,
            right & MASK,
            (left >> 32 & MASK) ^ c3 ^ k1,
            left & MASK,
        )
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


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
