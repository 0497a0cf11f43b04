"""Pictures as a small grid of vectors, quantized or not, and back: what a tokenizer is made of.

Trained here as pixels in and pixels out; its codes are what `codes` reads and writes, its vectors what `latents` does.

Source:  vectors drawn around a mean and held near a normal law ("KL"): Kingma & Welling 2013 (arXiv:1312.6114), as in
         Rombach et al. 2022 (arXiv:2112.10752).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from mixmodal.chance import normal
from mixmodal.config import options
from mixmodal.convnets import by_size, to_canvas
from mixmodal.kinds import kind_of
from mixmodal.picture_nets import NetConfig, nets_of
from mixmodal.sequence import Grid, raster


@dataclass(frozen=True)
class Config(NetConfig):
    """Options of the nets, and of the vectors between them.

    Units:   `vector` is the numbers of a position where there is no `quantizer`, which is {"kind": file name, option:
             value}; then `kl` > 0 draws them in training, and weighs how far their law is from a normal one.
    """

    vector: int = 10
    kl: float = 0.0
    quantizer: dict[str, Any] = field(default_factory=dict)


class Codec(nn.Module):
    """Patches of pixels as positions, as the grid will have them; nothing of them enters the trunk."""

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        self.config, self.width = config, width
        self.size = config.shrink**2 * config.channels
        self.quantizer, vector = None, config.vector
        if config.quantizer:
            module = kind_of("quantizers", config.quantizer)
            chosen = options(module.Config, config.quantizer, "codec.quantizer")
            self.quantizer, vector = module.build(chosen), chosen.width
            if config.kl:
                raise ValueError("codec.kl is for vectors that nothing quantizes: set it to 0, or take no quantizer")
        self.vector, drawn = vector, config.kl > 0
        self.encoder, self.decoder = self.nets(vector << drawn)
        if self.quantizer is None:  # what others divide by, so that each number spans as much as noise does
            self.mean, self.square = (nn.Parameter(torch.full((vector,), v), requires_grad=False) for v in (0.0, 1.0))
            self.steps = nn.Parameter(torch.zeros(1), requires_grad=False)
        self._seen: list[Tensor] = []  # of this step: numbers of vectors, sums, sums of squares

    def nets(self, made: int) -> tuple[nn.Module, nn.Module]:
        """The encoder, which makes vectors of `made` numbers, and the decoder."""
        encoder, decoder = nets_of(self.config)
        return encoder(self.config, made), decoder(self.config, self.vector)

    def vectors(self, pictures: Tensor) -> Tensor:
        """What the encoder makes of pictures.

        Shapes:  [n, C, H, W] -> [n, made, h, w].
        """
        return self.encoder(pictures)

    def made(self, vectors: Tensor) -> Tensor:
        """What the decoder makes of vectors.

        Shapes:  [n, vector, h, w] -> [n, C, H, W].
        """
        return self.decoder(vectors)

    @property
    def device(self) -> torch.device:
        """Where the nets are."""
        return next(self.decoder.parameters()).device

    def encode(self, part: Any) -> Grid:
        """Patches of pixels in raster order; a part that they do not divide is padded with its edge."""
        array, shrink = self._padded(part.array()[0]), self.config.shrink
        values = rearrange(array, "(h p) (w q) c -> (h w) (p q c)", p=shrink, q=shrink)
        size = self.cells((1, *array.shape[:2]))
        return Grid(values, raster(size), size)

    def _padded(self, array: np.ndarray) -> np.ndarray:
        """Rows and columns up to a multiple of `shrink`, the edge repeated."""
        missing = [(0, (-side) % self.config.shrink) for side in array.shape[:2]]
        return np.pad(array, missing + [(0, 0)] * (array.ndim - 2), mode="edge")

    def cells(self, extent: tuple[int, int, int]) -> tuple[int, int, int]:
        """How many positions cover frames, rows and columns of `extent`."""
        shrink = self.config.shrink
        return (extent[0], -(-extent[1] // shrink), -(-extent[2] // shrink))

    def extent(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Frames, height and width that `size` positions cover."""
        return (size[0], size[1] * self.config.shrink, size[2] * self.config.shrink)

    def coords(self, grid: Grid) -> np.ndarray:
        """Coordinates of the positions, relative to where the part begins."""
        return grid.cells

    def empty(self, size: tuple[int, int, int]) -> Grid:
        """The grid of a part of `size` positions that has no values yet."""
        cells = raster(size)
        return Grid(np.zeros((len(cells), self.size), np.float32), cells, size)

    def decode(self, values: np.ndarray, grid: Grid, part: Any) -> Any:
        """The part with these pixels, cut to its own size."""
        shrink, (_, rows, columns) = self.config.shrink, grid.size
        array = rearrange(values, "(h w) (p q c) -> (h p) (w q) c", h=rows, w=columns, p=shrink, q=shrink)
        return part.with_array(array[None])

    def fields(self, grid: Grid) -> dict[str, np.ndarray]:
        """What a position holds."""
        size = np.tile(np.asarray(grid.size[1:], np.int64), (len(grid.values), 1))
        return {"values": grid.values.astype(np.float32), "size": size}

    def blank(self) -> dict[str, Tensor]:
        """One position that holds nothing."""
        return {"values": torch.zeros(1, self.size), "size": torch.ones(1, 2, dtype=torch.long)}

    def embed(self, fields: dict[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Nothing: zeros.

        Shapes:  [N, C] -> [N, D].
        """
        return fields["values"].new_zeros(len(fields["values"]), self.width)

    def canvases(self, fields: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Whole pictures of each size that there is, and the positions that they come from.

        Shapes:  [n, C, H, W], [N].
        """
        patch = (self.config.shrink, self.config.shrink)
        return [
            (to_canvas(fields["values"][at], rows, columns, patch), at) for rows, columns, at in by_size(fields["size"])
        ]

    def forward(
        self, pictures: Tensor, progress: float = 1.0, chance_n: Tensor | None = None, settled: bool = False
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """Pictures as they come back, their codes, and what vectors add to the loss; with `chance_n` they are drawn.

        `settled`: only the decoder learns, so codes stay what they are.
        Shapes:  [n, C, H, W] -> [n, C, H, W], [n * positions, G].
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not settled):
            vectors, codes, losses = self._between(pictures, progress, chance_n)
        return self.made(vectors.to(pictures.dtype)), codes, losses

    def _between(
        self, pictures: Tensor, progress: float, chance_n: Tensor | None
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """The vectors that the decoder is given, their codes, and what they add to the loss."""
        vectors, codes, losses = self.vectors(pictures), None, {}
        if self.config.kl:
            vectors, log_n = vectors.float().chunk(2, 1)
            log_n = log_n.clamp(-20, 10)  # of the variance
            losses["kl"] = self.config.kl * 0.5 * (vectors.square() + log_n.exp() - 1 - log_n).mean()
            if chance_n is not None:
                vectors = vectors + (0.5 * log_n).exp() * normal(chance_n, vectors[0].numel()).view(vectors.shape)
        if self.quantizer is None and self.training and torch.is_grad_enabled():
            flat_DN = vectors.detach().float().movedim(1, 0).flatten(1)
            self._seen.append(
                torch.stack(
                    (flat_DN.new_full((self.vector,), flat_DN.shape[1]), flat_DN.sum(1), flat_DN.square().sum(1))
                )
            )
        if self.quantizer is not None:
            n, _, rows, columns = vectors.shape
            flat_ND = rearrange(vectors, "n d h w -> (n h w) d")
            values_ND, codes, losses = self.quantizer(flat_ND, progress)
            vectors = rearrange(values_ND, "(n h w) d -> n d h w", n=n, h=rows, w=columns)
        return vectors, codes, losses

    @torch.no_grad()
    def moved(self, ranks: Any, taken: bool) -> None:
        """Move the moments of vectors that nothing quantizes by what the last step saw on all ranks."""
        seen, self._seen = self._seen, []
        if self.quantizer is not None or not taken:
            return
        sums = torch.stack(seen).sum(0) if seen else torch.zeros(3, self.vector, device=self.mean.device)
        number, total, square = ranks.total(sums)
        if number[0] > 0:
            self.steps += 1
            share = max(0.02, 1 / float(self.steps))
            self.mean.lerp_(total / number, share)
            self.square.lerp_(square / number, share)

    def latents(self, part: Any) -> np.ndarray:
        """The vectors of a part, fp32, those of no quantizer normed. Known ones are told nothing of what is not known.

        Shapes:  -> [1, h, w, vector].
        """
        array, known = part.array()[0], self.known(part)
        if known is None:
            return self._latents(array)
        seen = array[part.known]
        greyed = np.where(part.known[..., None], array, seen.mean(0) if len(seen) else np.float32(0))
        return np.where(known[..., None], self._latents(greyed), self._latents(array))

    @torch.no_grad()
    def _latents(self, array: np.ndarray) -> np.ndarray:
        picture = torch.from_numpy(np.ascontiguousarray(self._padded(array).transpose(2, 0, 1), np.float32))[None]
        found = self.vectors(picture.to(self.device)).float()[:, : self.vector].movedim(1, -1)
        if self.quantizer is None:
            found = (found - self.mean) / self._deviation()
        return found.cpu().numpy()

    def known(self, part: Any) -> np.ndarray | None:
        """Which positions of a part are known: those all of whose pixels are.

        Shapes:  -> [1, h, w], or None where all are.
        """
        if part.known is None:
            return None
        shrink = self.config.shrink
        return rearrange(self._padded(part.known), "(h p) (w q) -> 1 h w (p q)", p=shrink, q=shrink).all(-1)

    @torch.no_grad()
    def pictures(self, latents: np.ndarray) -> np.ndarray:
        """The array that vectors, as `latents` gives them, decode to.

        Shapes:  [1, h, w, vector] -> [1, H, W, C].
        """
        vectors = torch.from_numpy(np.ascontiguousarray(latents, np.float32)).to(self.device)
        if self.quantizer is None:
            vectors = vectors * self._deviation() + self.mean
        return self.made(vectors.movedim(-1, 1)).clamp(-1, 1).movedim(1, -1).cpu().numpy()

    def _deviation(self) -> Tensor:
        return (self.square - self.mean.square()).clamp(min=1e-8).sqrt()

    def rebuilt(self, part: Any) -> Any:
        """The part as it comes back."""
        latents = self.latents(part)
        if self.quantizer is not None:
            latents = self.from_codes(self.to_codes(latents), latents.shape)
        return part.with_array(self.pictures(latents))

    @torch.no_grad()
    def to_codes(self, latents: np.ndarray) -> np.ndarray:
        """The codes of vectors in raster order.

        Shapes:  [1, h, w, vector] -> [h * w, G].
        """
        flat = torch.from_numpy(latents).reshape(-1, self.vector).to(self.device)
        return self.quantizer(flat).codes_NG.cpu().numpy()

    @torch.no_grad()
    def from_codes(self, codes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The vectors that codes stand for.

        Shapes:  [h * w, G] -> `shape`, [1, h, w, vector].
        """
        found = self.quantizer.lookup(torch.from_numpy(codes).to(self.device))
        return found.float().cpu().numpy().reshape(shape)


def build(config: Config, width: int) -> Codec:
    """The codec for a trunk of `width`."""
    return Codec(config, width)
