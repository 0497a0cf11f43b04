"""On a machine with a GPU: what `on_gpu.py` asks of it. The other tests hide it, for they ask the processor."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.skipif(not Path("/dev/nvidia0").exists(), reason="this machine has no GPU that CUDA could use")
def test_a_gpu_computes_and_trains_as_the_processor_does():
    shown = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    paths = {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    done = subprocess.run(
        [sys.executable, str(HERE / "on_gpu.py")], env=shown | paths, capture_output=True, text=True, timeout=500
    )
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
