"""How full the rows of every recipe are, and how long a step waits for its data.

Recipes whose data is not on this machine are left out, and it says so.
"""

from __future__ import annotations

import statistics
import time

from paired import arguments

from mixmodal import prepare
from mixmodal.optim import make_optimizers
from mixmodal.recipes import recipes
from mixmodal.step import train_step

if __name__ == "__main__":
    given = arguments(__doc__, batches=30, steps=0)
    prepare.measured_peak = lambda *_: 1e11
    prepare.TOKENIZER_DOCUMENTS = 300
    print(f"{'':16} {'mean fill':>9} {'least':>7} {'a batch':>10} {'a step':>8} {'share waiting':>14}")
    for name, function in recipes().items():
        if given.only not in name:
            continue
        try:
            run = prepare.prepare(function(), "cpu")
        except (ValueError, OSError, ImportError) as error:
            print(f"{name:16} left out: {str(error)[:90]}")
            continue
        fills, ticks, steps = [], [], []
        for number in range(given.batches):
            began = time.process_time()
            batch = run.loader.next(0.5)
            ticks.append(time.process_time() - began)
            fills.append(run.loader.fill)
            if number < given.steps:
                if not number:
                    optimizers = make_optimizers(run.model.groups(), run.recipe.optim)
                    prepare.compile_trunk(run.model)
                began = time.process_time()
                train_step(run, batch, optimizers)
                steps.append(time.process_time() - began)
        data = statistics.median(ticks)
        step = f"{(s := statistics.median(steps[3:])):6.3f} s {data / (s + data):13.1%}" if len(steps) > 3 else ""
        print(f"{name:16} {statistics.mean(fills):9.1%} {min(fills):7.1%} {data:8.3f} s {step}", flush=True)
