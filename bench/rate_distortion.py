"""Tokenizers beside JPEG, WebP and AVIF on the same pictures: bits per pixel against PSNR and SSIM.

`python bench/rate_distortion.py RUN RUN ... -o rate.png`, tokenizers of any rate. Kodak photographs are brought to
256 x 256 pixels, emoji are 64 x 64 on white. Files are counted whole, headers included; codes by fixed length, and
as an adaptive coder over single codes spends it (Krichevsky-Trofimov estimates, all pictures in one stream; a coder
of arithmetic adds two bits in all). The tokenizer's own weights are counted in neither.
"""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture

from mixmodal.api import load
from mixmodal.data import make_source
from mixmodal.parts import Image
from mixmodal.similarity import psnr, ssim
from mixmodal.track import plot

QUALITIES = {
    "JPEG": (2, 5, 10, 20, 40, 60, 80, 95),
    "WEBP": (0, 5, 20, 40, 60, 80, 95),
    "AVIF": (1, 10, 25, 40, 60, 80, 95),
}
SETS = {
    "kodak": ({"kind": "kodak24", "size": 256}, 24),
    "emoji": ({"kind": "emoji-noto", "size": 64, "split": "valid"}, 48),
}


def pictures(name: str) -> list[np.ndarray]:
    """The pictures of a set, uint8."""
    spec, count = SETS[name]
    source = make_source(spec)
    out = []
    for number in range(count):
        document = source.document(number, np.random.default_rng(number))
        out.append(next(p.pixels for p in document.parts if isinstance(p, Image)))
    return out


def near(made: list[np.ndarray], true: list[np.ndarray]) -> tuple[float, float]:
    """Mean PSNR and SSIM."""
    pairs = [
        [torch.from_numpy(p.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None] for p in pair]
        for pair in zip(made, true, strict=True)
    ]
    return tuple(float(np.mean([float(f(a, b)) for a, b in pairs])) for f in (psnr, ssim))


def filed(kind: str, quality: int, true: list[np.ndarray]) -> tuple[float, list[np.ndarray]]:
    """Bits per pixel of files, and the pictures in them."""
    size, made = 0, []
    for pixels in true:
        held = io.BytesIO()
        Picture.fromarray(pixels).save(held, kind, quality=quality)
        size += held.tell()
        made.append(np.asarray(Picture.open(held).convert("RGB")))
    return 8 * size / sum(p.shape[0] * p.shape[1] for p in true), made


@torch.inference_mode()
def tokenized(where: str, true: list[np.ndarray]) -> tuple[str, float, float, list[np.ndarray]]:
    """Name, bits per pixel by fixed length and coded, and the pictures as they come back."""
    loaded = load(where)
    codec = next(s.codec for s in loaded.model.streams.values() if hasattr(s.codec, "rebuilt"))
    made, codes = [], []
    for pixels in true:
        latents = codec.latents(Image(pixels))
        found = codec.to_codes(latents)
        codes.append(codec.quantizer.index(torch.from_numpy(found)).numpy())
        made.append(Image(pixels).with_array(codec.pictures(codec.from_codes(found, latents.shape))).pixels)
    area = sum(p.shape[0] * p.shape[1] for p in true)
    stream = np.concatenate(codes)
    return (
        loaded.about["recipe"],
        len(stream) * codec.quantizer.bits / area,
        spent(stream, 2**codec.quantizer.bits) / area,
        made,
    )


def spent(stream: np.ndarray, size: float) -> float:
    """The bits of a stream of codes, each told by how often it came before."""
    seen: dict[int, int] = {}
    bits = 0.0
    for number, code in enumerate(stream.tolist()):
        bits -= math.log2((seen.get(code, 0) + 0.5) / (number + size / 2))
        seen[code] = seen.get(code, 0) + 1
    return bits


def main() -> None:
    """Print the tables and write a plot for each set."""
    told = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    told.add_argument("runs", nargs="*")
    told.add_argument("-o", type=Path, default=Path("rate.png"))
    given = told.parse_args()
    torch.set_num_threads(1)
    for name in SETS:
        true = pictures(name)
        lines: dict[str, list[tuple[float, float]]] = {}
        print(f"\n{name}: {len(true)} pictures of {true[0].shape[0]} x {true[0].shape[1]}")
        for kind, qualities in QUALITIES.items():
            for quality in qualities:
                rate, made = filed(kind, quality, true)
                decibel, alike = near(made, true)
                print(
                    f"  {kind:16} {quality:3}  {rate:6.3f} bits a pixel{'':15}{decibel:6.2f} dB  SSIM {alike:.3f}",
                    flush=True,
                )
                lines.setdefault(kind, []).append((rate, decibel))
        for run in given.runs:
            recipe, rate, coded, made = tokenized(run, true)
            decibel, alike = near(made, true)
            print(
                f"  {recipe:20}  {rate:6.3f} bits a pixel, coded {coded:6.3f}  {decibel:6.2f} dB  SSIM {alike:.3f}",
                flush=True,
            )
            lines.setdefault(recipe, []).append((coded, decibel))
        drawn = {n: sorted(points) for n, points in lines.items()}
        kept = {n: [(r, d) for r, d in points if r < 4] for n, points in drawn.items()}
        ys = {n: [d for _, d in points] for n, points in kept.items() if points}
        xs = {n: [r for r, _ in points] for n, points in kept.items() if points}
        plot(ys, xs, "bits per pixel, entropy-coded", f"PSNR, dB: {name}").save(
            given.o.with_stem(f"{given.o.stem}_{name}")
        )


if __name__ == "__main__":
    main()
