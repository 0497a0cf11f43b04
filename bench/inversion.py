"""Pictures to noise and back by the flow's path: how near they come back, over evaluations each way.

`python bench/inversion.py RUN -o plot.png`, where RUN has a flow (transfusion_two, lossless_two; builtin:scenes with
--start 0.9). What a codec loses is left out: latents are compared with what the same latents decode to.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from mixmodal.api import load
from mixmodal.data import make_source
from mixmodal.inversion import from_noise, to_noise
from mixmodal.parts import Document, Image, Text
from mixmodal.track import plot

EVALUATIONS = (10, 16, 24, 50, 100, 200)


def main() -> None:
    """Print the table and write the plot."""
    told = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    told.add_argument("run")
    told.add_argument("-n", type=int, default=32, help="held-out pictures")
    told.add_argument("--start", type=float, default=1.0, help="the time at which the way begins, with noise below 1")
    told.add_argument("--solvers", nargs="+", default=["euler", "heun"])
    told.add_argument("--evaluations", nargs="+", type=int, default=EVALUATIONS)
    told.add_argument("-o", type=Path, default=Path("inversion.png"))
    given = told.parse_args()
    torch.set_num_threads(1)
    loaded = load(given.run)
    spec = next(s for s in loaded.about["sources"].values() if s["kind"] == "scenes")
    world = make_source({"kind": "scenes", "level": spec["level"], "split": "heldout"})
    scenes = [world.draw(np.random.default_rng([0, number])) for number in range(given.n)]
    documents = [Document((Text(world.caption(s)), Image(world.render(s))), key=n) for n, s in enumerate(scenes)]
    codec = loaded.model.writer("image").codec
    true = []
    for document in documents:
        part = document.parts[-1]
        grid = codec.encode(part)
        true.append(codec.decode(grid.values, grid, part).pixels)
    lines: dict[str, list[float]] = {}
    for solver in given.solvers:
        each = 2 if solver == "heun" else 1
        for evaluations in given.evaluations:
            steps = (evaluations + each - 1) // each  # Heun's last step takes one
            rng = torch.Generator().manual_seed(0)
            noise = to_noise(loaded.model, documents, steps, solver, start=given.start, rng=rng)
            back = from_noise(loaded.model, documents, noise, steps, solver, start=given.start)
            error = [np.square(a / 255.0 - b.parts[-1].pixels / 255.0).mean() for a, b in zip(true, back, strict=True)]
            decibel = float(np.mean([-10 * np.log10(max(e, 1e-10)) for e in error]))
            lines.setdefault(solver, []).append(decibel)
            spread = float(np.std(np.stack(noise)))
            print(f"{solver:6} {evaluations:4} evaluations each way  {decibel:6.2f} dB   noise spreads {spread:.2f}")
    plot(lines, [float(np.log2(e)) for e in given.evaluations], "log2 of evaluations each way", "PSNR, dB").save(
        given.o
    )
    print(given.o)


if __name__ == "__main__":
    main()
