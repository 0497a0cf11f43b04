"""What a GPU must do as the processor does it, in a process of its own: `python tests/on_gpu.py [cuda]`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
DEVICE = sys.argv[1] if len(sys.argv) > 1 else "cuda"
TOLERANCE = 1e-4  # of the largest number: sums are added in another order there


def ways(device: str) -> list[str]:
    """The paths of attention that have a way back on a device."""
    from mixmodal.attention import PATHS

    return [path for path in PATHS if path != "flex" or device != "cpu"]


def compared(device: str) -> None:
    """Losses and gradients of a packed batch are those of the processor, on every path, recomputed or not."""
    from conftest import mixed_documents, small_model

    from mixmodal.sequence import collate, pack

    model, other = small_model(), small_model().to(device)
    sequences = [model.lay_out(d, np.random.default_rng(d.key)) for d in mixed_documents()]
    batch = collate(sequences, pack(sequences, 4, 128), 128, model.blank())

    def moved(who, given, path):
        who.zero_grad()
        losses = who.losses(given, path)
        sum(total for total, _ in losses.values()).backward()
        found = {n: p.grad.cpu() for n, p in who.named_parameters() if p.grad is not None}
        return found | {n: total.detach().cpu() for n, (total, _) in losses.items()}

    expected = moved(model, batch, "plain")
    for path in ways(device):
        for recompute in (False, True):
            other.trunk.recompute = recompute
            for name, found in moved(other, batch.to(device), path).items():
                far = float((found - expected[name]).abs().max() / expected[name].abs().max().clamp(min=1e-2))
                assert far <= TOLERANCE, (path, recompute, name, far)
        print(f"{path}: losses and gradients are those of the processor", flush=True)


def trained(device: str) -> None:
    """A run as most begin theirs, compiled and in the precision that the machine likes, resumed, and asked."""
    from tiny import RECIPE

    from mixmodal import api
    from mixmodal.train import train

    with tempfile.TemporaryDirectory() as home:
        for path in ways(device):
            recipe = replace(RECIPE, compile=True, precision="auto", path=path, steps=4, every=2, accumulate=2)
            out = Path(home) / path
            train(recipe, out)
            shutil.rmtree(out / "checkpoints/step_00000004")  # as if it had been killed before that
            train(recipe, out, resume=True)
            model = api.load(out, device)
            made = model.sample("a big red circle on a white background", steps=2, guidance=2.0)
            assert made[0].size == (16, 16) and isinstance(model.caption(made)[0], str)
            print(f"{path}: trained, resumed, drew and wrote", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    if DEVICE != "cpu" and not torch.cuda.is_available():
        print("torch can use no GPU here")
        sys.exit(77)
    compared(DEVICE)
    trained(DEVICE)
