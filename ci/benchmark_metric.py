"""How fast is `smp`, beside the plain estimator composed of SciPy calls? `python ci/benchmark_metric.py`

One thread, float64, 200 signals of 10,001 samples: a smooth Gaussian process with 40 hinges each. The two
take turns, and the ratio of their fastest rounds is printed, for a busy machine slows both. The composition
does less than `smp`: no background is fitted, overlapping kinks are not told apart, noise is not met.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from smpcore import signals, smp
from smpcore.benchmarks import in_turns, scipy_composition


def main() -> None:
    """Print seconds, their ratio, and how near each comes to the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--samples", type=int, default=10_001)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    smooth = signals.gaussian_process("rbf", options.samples, 20.0, count=options.signals, length_scale=0.5)
    kinked = signals.hinge_signals(smooth.times, 40, count=options.signals, seed=1)
    values, spacing = smooth.values + kinked.values, 20.0 / (options.samples - 1)
    array = values.numpy()
    work = {"scipy": lambda: scipy_composition(array, spacing), "smp": lambda: smp(array, spacing)}
    seconds = in_turns(work, options.rounds)
    truth = kinked.smp.numpy()
    for name, reading in (("scipy", scipy_composition(array, spacing)), ("smp", smp(array, spacing))):
        print(f"{name:6s} {seconds[name]:.3f} s   reads {np.mean(reading / truth):.4f} of the truth")
    print(f"ratio  {seconds['scipy'] / seconds['smp']:.2f}")


if __name__ == "__main__":
    main()
