"""Milliseconds of quantizers on one thread, forward and with the gradient, at the sizes that papers use."""

from __future__ import annotations

import importlib
import statistics
import time

import torch

ROUNDS = 50
CASES = {
    "lfq, 2^18 codes, 2 groups, 256 positions": ("lfq", {"bits": 18, "groups": 2}, 256),
    "lfq, 2^14 codes, 1 group, 1024 positions": ("lfq", {"bits": 14}, 1024),
    "bsq, 2^18 codes, 2 groups, 256 positions": ("lfq", {"bits": 18, "groups": 2, "sphere": True}, 256),
    "fsq, 8 5 5 5, 1024 positions": ("fsq", {}, 1024),
    "vq, 1024 codes of 8, 1024 positions": ("vq", {}, 1024),
}


def milliseconds(kind: str, options: dict, positions: int) -> tuple[float, float]:
    """Medians of a forward pass, and of one with its gradient."""
    module = importlib.import_module(f"mixmodal.quantizers.{kind}")
    config = module.Config(**options)
    quantizer = module.build(config).train()
    z = torch.randn(positions, config.width, requires_grad=True)
    forward, both = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = quantizer(z)
        there = time.perf_counter()
        (found.values_ND.square().mean() + sum(found.losses.values())).backward()
        forward.append(there - began)
        both.append(time.perf_counter() - began)
        getattr(quantizer, "_seen", []).clear()
    return 1e3 * statistics.median(forward), 1e3 * statistics.median(both)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, (kind, options, positions) in CASES.items():
        forward, both = milliseconds(kind, options, positions)
        print(f"{name:44} {forward:7.2f} ms forward  {both:7.2f} ms with the gradient")
