"""The autoencoder of latent diffusion models, net for net as diffusers computes it, under the names it saves it by.

Source:  Rombach et al. 2022 (arXiv:2112.10752); class AutoencoderKL of github.com/huggingface/diffusers.
Differs: vectors are the means of their laws, never drawn; a picture that positions do not divide is padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mixmodal.codecs.autoencoder import Codec as Autoencoder

EPS = 1e-6


@dataclass(frozen=True)
class Config:
    """Options of the nets: `block_out_channels`, `layers_per_block`, `norm_num_groups`, `latent_channels` and so on.

    Units:   `widths` from the finest grid to the coarsest, each after the first at half the side; `vector` numbers a
             position, of which `mean` is taken and which are then divided by `deviation`, one for all or one each;
             `attention` in the middle; `mixed_out` and `mixed_in` are the matrices behind the encoder and before the
             decoder.
    """

    widths: tuple[int, ...] = (64,)
    layers: int = 1
    groups: int = 32
    channels: int = 3
    vector: int = 4
    attention: bool = True
    mixed_out: bool = True
    mixed_in: bool = True
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)
    kl: ClassVar[float] = 0.0
    quantizer: ClassVar[dict[str, Any]] = {}

    @property
    def shrink(self) -> int:
        """How many pixels along a side one position stands for."""
        return 1 << (len(self.widths) - 1)


class ResnetBlock(nn.Module):
    """Twice normed over groups, bent and filtered, and added to what came, widened where that is narrower."""

    def __init__(self, groups: int, before: int, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, before, EPS), nn.Conv2d(before, width, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, width, EPS), nn.Conv2d(width, width, 3, padding=1)
        if before != width:
            self.conv_shortcut = nn.Conv2d(before, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same sides."""
        kept = self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x
        x = self.conv1(F.silu(self.norm1(x)))
        return kept + self.conv2(F.silu(self.norm2(x)))


class Attention(nn.Module):
    """Every place of the grid from all of them, one head as wide as the features."""

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        flat = self.group_norm(x).flatten(2).transpose(1, 2)
        found = F.scaled_dot_product_attention(self.to_q(flat), self.to_k(flat), self.to_v(flat))
        return x + self.to_out[0](found).transpose(1, 2).view(x.shape)


class Middle(nn.Module):
    """Two residual blocks, and attention between them where there is one."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.widths[-1]
        self.resnets = nn.ModuleList(ResnetBlock(config.groups, width, width) for _ in range(2))
        self.attentions = nn.ModuleList(Attention(config.groups, width) for _ in range(config.attention))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape."""
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class Halved(nn.Module):
    """Half the sides, padded behind alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Fewer places."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Doubled(nn.Module):
    """Twice the sides, each place four times and then filtered."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """More places."""
        return self.conv(F.interpolate(x, scale_factor=2.0))


class Stage(nn.Module):
    """Residual blocks of one width, and then another size under the name `sampled`, where there is a `sampler`."""

    def __init__(self, blocks: list[ResnetBlock], sampled: str, sampler: nn.Module | None) -> None:
        super().__init__()
        self.resnets, self.sampled = nn.ModuleList(blocks), sampled
        setattr(self, sampled, nn.ModuleList([sampler] if sampler else []))

    def forward(self, x: Tensor) -> Tensor:
        """Features for the next stage."""
        for module in (*self.resnets, *getattr(self, self.sampled)):
            x = module(x)
        return x


def stages(config: Config, widths: tuple[int, ...], layers: int, sampled: str) -> nn.ModuleList:
    """A stage for each of the widths, each but the last followed by another size."""
    made, before, sampler = [], widths[0], {"downsamplers": Halved, "upsamplers": Doubled}[sampled]
    for number, width in enumerate(widths):
        blocks = [ResnetBlock(config.groups, width if layer else before, width) for layer in range(layers)]
        made.append(Stage(blocks, sampled, sampler(width) if number < len(widths) - 1 else None))
        before = width
    return nn.ModuleList(made)


class Encoder(nn.Module):
    """Whole pictures as means and logarithms of variances on a grid.

    Shapes:  [n, C, H, W] -> [n, 2 * vector, H / shrink, W / shrink].
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        first, last = config.widths[0], config.widths[-1]
        self.conv_in = nn.Conv2d(config.channels, first, 3, padding=1)
        self.down_blocks = stages(config, config.widths, config.layers, "downsamplers")
        self.mid_block = Middle(config)
        self.conv_norm_out = nn.GroupNorm(config.groups, last, EPS)
        self.conv_out = nn.Conv2d(last, 2 * config.vector, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """The laws."""
        x = self.conv_in(pictures)
        for stage in self.down_blocks:
            x = stage(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Vectors on a grid as whole pictures.

    Shapes:  [n, vector, h, w] -> [n, C, h * shrink, w * shrink].
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        first, last = config.widths[0], config.widths[-1]
        self.conv_in = nn.Conv2d(config.vector, last, 3, padding=1)
        self.mid_block = Middle(config)
        self.up_blocks = stages(config, config.widths[::-1], config.layers + 1, "upsamplers")
        self.conv_norm_out = nn.GroupNorm(config.groups, first, EPS)
        self.conv_out = nn.Conv2d(first, config.channels, 3, padding=1)

    def forward(self, vectors: Tensor) -> Tensor:
        """The pictures."""
        x = self.mid_block(self.conv_in(vectors))
        for stage in self.up_blocks:
            x = stage(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Codec(Autoencoder):
    """Another's autoencoder where one of ours may stand: under `latents`, or to be judged."""

    def __init__(self, config: Config, width: int) -> None:
        if not config.widths or any(each % config.groups for each in config.widths):
            raise ValueError(
                f"widths are {list(config.widths)}: take one or more that the {config.groups} groups divide"
            )
        super().__init__(config, width)
        mean, deviation = (torch.tensor(each).expand(config.vector) for each in (config.mean, config.deviation))
        self.mean.data, self.square.data = mean.clone(), mean.square() + deviation.square()
        self.quant_conv = nn.Conv2d(2 * config.vector, 2 * config.vector, 1) if config.mixed_out else nn.Identity()
        self.post_quant_conv = nn.Conv2d(config.vector, config.vector, 1) if config.mixed_in else nn.Identity()

    def nets(self, made: int) -> tuple[nn.Module, nn.Module]:
        """The encoder and the decoder."""
        return Encoder(self.config), Decoder(self.config)

    def vectors(self, pictures: Tensor) -> Tensor:
        """The means of the laws of pictures.

        Shapes:  [n, C, H, W] -> [n, vector, h, w].
        """
        return self.quant_conv(self.encoder(pictures.float()))[:, : self.vector]

    def made(self, vectors: Tensor) -> Tensor:
        """The pictures of vectors.

        Shapes:  [n, vector, h, w] -> [n, C, H, W].
        """
        return self.decoder(self.post_quant_conv(vectors.float()))


def build(config: Config, width: int) -> Codec:
    """The codec for a trunk of `width`."""
    return Codec(config, width)
