"""Rotary positions in three axes (t, y, x); with equal coordinates they are ordinary one-dimensional RoPE."""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_tables(coords_BL3: Tensor, head_size: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every angle; frequency i turns with axis i mod 3.

    Shapes:  [B, L, 3] -> twice [B, L, E], the second half of E repeating the first.
    Source:  Su et al. 2021 (arXiv:2104.09864); the halves are paired as in transformers' Qwen3.
    """
    half = head_size // 2
    frequency = theta ** -(torch.arange(half, dtype=torch.float32, device=coords_BL3.device) / half)
    axis = torch.arange(half, device=coords_BL3.device) % 3
    angle_BLE = (coords_BL3.float()[..., axis] * frequency).repeat(1, 1, 2)
    return angle_BLE.cos(), angle_BLE.sin()


def rotate(x_BLHE: Tensor, cos_BLE: Tensor, sin_BLE: Tensor) -> Tensor:
    """`x_BLHE` turned by the angles of its position, in its own dtype."""
    first, second = x_BLHE.float().chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (x_BLHE.float() * cos_BLE[:, :, None] + turned * sin_BLE[:, :, None]).to(x_BLHE.dtype)
