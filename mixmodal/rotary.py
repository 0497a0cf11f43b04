"""Rotary positions in three axes (t, y, x); with equal coordinates they are ordinary one-dimensional RoPE."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from mixmodal.config import RotaryScaling


def frequencies(head_size: int, theta: float, scaling: RotaryScaling | None = None) -> Tensor:
    """How far each pair of a head turns from one position to the next.

    Shapes:  -> [E / 2].
    Units:   radians.
    Raises:  ValueError for an unknown kind of scaling.
    Source:  Chen et al. 2023 (arXiv:2306.15595), linear; Grattafiori et al. 2024 (arXiv:2407.21783), llama3.
    """
    half = head_size // 2
    frequency = theta ** -(torch.arange(half, dtype=torch.float32) / half)
    if scaling is None:
        return frequency
    if scaling.kind == "linear":
        return frequency / scaling.factor
    if scaling.kind != "llama3":
        raise ValueError(f"rope_scaling.kind is {scaling.kind!r}: take linear or llama3")
    turns = scaling.length * frequency / (2 * math.pi)
    kept = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return frequency * (kept + (1 - kept) / scaling.factor)


def rotary_tables(
    coords_BL3: Tensor, head_size: int, theta: float, scaling: RotaryScaling | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every angle, as `rotate` takes them; frequency i turns with axis i mod 3.

    Shapes:  [B, L, 3] -> twice [B, L, E], the second half of E repeating the first, whose sines are negative.
    Source:  Su et al. 2021 (arXiv:2104.09864); the halves are paired as in transformers' Qwen3.
    """
    frequency, axis = turning(head_size, theta, scaling, coords_BL3.device)
    angle_BLF = coords_BL3.float()[..., axis] * frequency
    sin_BLF = angle_BLF.sin()
    return angle_BLF.cos().repeat(1, 1, 2), torch.cat((-sin_BLF, sin_BLF), dim=-1)


@cache
def turning(head_size: int, theta: float, scaling: RotaryScaling | None, device: torch.device) -> tuple[Tensor, ...]:
    """The frequencies, and the axis that each turns with: kept, since every token that is written asks for them."""
    with torch.inference_mode(False):
        frequency = frequencies(head_size, theta, scaling).to(device)
        return frequency, torch.arange(len(frequency), device=device) % 3


def rotate(x_BLHE: Tensor, cos_BLE: Tensor, sin_BLE: Tensor) -> Tensor:
    """`x_BLHE` turned by the angles of its position, in its own dtype."""
    x = x_BLHE.float()
    other = x.roll(x.shape[-1] // 2, -1)  # the half that each half is turned with
    return (x * cos_BLE[:, :, None] + other * sin_BLE[:, :, None]).to(x_BLHE.dtype)
