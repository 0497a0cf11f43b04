"""How alike two pictures are: PSNR, SSIM at one scale and at several, and the energy of edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SPREAD = 11, 1.5


def psnr(made: Tensor, true: Tensor) -> Tensor:
    """Peak signal over error of each picture.

    Shapes:  twice [n, C, H, W], values in [-1, 1] -> [n].
    Units:   dB; at most 100.
    """
    error_n = (made - true).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error_n.clamp(min=4e-10))


def ssim(made: Tensor, true: Tensor) -> Tensor:
    """The structural similarity of each picture, the mean over its channels.

    Shapes:  twice [n, C, H, W], values in [-1, 1] -> [n].
    Source:  Wang et al. 2004; a Gaussian window of 11 px, smaller where the picture is.
    """
    return _terms(made, true)[0]


def ms_ssim(made: Tensor, true: Tensor) -> Tensor:
    """The structural similarity of each picture over five scales.

    Shapes:  twice [n, C, H, W], values in [-1, 1] -> [n].
    Raises:  ValueError for pictures of 160 px or less along a side.
    Source:  Wang, Simoncelli & Bovik 2003.
    """
    if min(made.shape[2:]) <= (WINDOW - 1) * 2 ** (len(SCALES) - 1):
        raise ValueError(f"pictures of {tuple(made.shape[2:])} px are too small for five scales: more than 160 px")
    out = torch.ones(len(made), device=made.device)
    for number, weight in enumerate(SCALES):
        whole_n, contrast_n = _terms(made, true)
        last = number == len(SCALES) - 1
        out = out * (whole_n if last else contrast_n).clamp(min=0) ** weight
        made, true = F.avg_pool2d(made, 2), F.avg_pool2d(true, 2)
    return out


def edge_energy(pictures: Tensor) -> Tensor:
    """The mean square of the differences between neighbours of each picture: what blur takes away.

    Shapes:  [n, C, H, W] -> [n].
    """
    across, down = pictures.diff(dim=3), pictures.diff(dim=2)
    return across.square().flatten(1).mean(1) + down.square().flatten(1).mean(1)


def _terms(made: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """The similarity and its part without brightness, of each picture."""
    size = min(WINDOW, *made.shape[2:])
    at = torch.arange(size, device=made.device) - (size - 1) / 2
    weight = torch.exp(-at.square() / (2 * SPREAD**2))
    weight = (weight / weight.sum()).to(made.dtype)
    channels = made.shape[1]
    down, across = weight.view(1, 1, -1, 1).expand(channels, 1, -1, 1), weight.view(1, 1, 1, -1)

    def blurred(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, down, groups=channels), across.expand(channels, 1, 1, -1), groups=channels)

    first, second = (2 * 0.01) ** 2, (2 * 0.03) ** 2
    mean_a, mean_b = blurred(made), blurred(true)
    spread_a = blurred(made * made) - mean_a * mean_a
    spread_b = blurred(true * true) - mean_b * mean_b
    both = blurred(made * true) - mean_a * mean_b
    contrast = (2 * both + second) / (spread_a + spread_b + second)
    brightness = (2 * mean_a * mean_b + first) / (mean_a * mean_a + mean_b * mean_b + first)
    return (brightness * contrast).flatten(1).mean(1), contrast.flatten(1).mean(1)


def frechet(made_ND: Tensor, true_ND: Tensor) -> float:
    """How far two sets of features lie apart, each taken for a normal law with its mean and covariance.

    Shapes:  [N, D] and [M, D], at least two of each.
    Source:  Dowson & Landau 1982; Heusel et al. 2017 (arXiv:1706.08500). With which features must be told beside it.
    """
    made_ND, true_ND = made_ND.double(), true_ND.double()
    one, other = (torch.cov(of_ND.T).reshape(of_ND.shape[1], -1) for of_ND in (made_ND, true_ND))
    values, vectors = torch.linalg.eigh(one)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ other @ root).clamp(min=0).sqrt().sum()
    apart = (made_ND.mean(0) - true_ND.mean(0)).square().sum()
    return float(apart + one.trace() + other.trace() - 2 * shared)
