"""How fast is `smp`, beside the plain estimator composed of SciPy calls? `python ci/benchmark_metric.py`

Float64, 200 signals of 10,001 samples: a smooth Gaussian process with 40 hinges each. The composition has one
thread, for SciPy's filters have no more; `smp` has one, then two. They take turns, and the ratios of their fastest
rounds are printed, for a busy machine slows all. The composition does less than `smp`: no background is fitted,
overlapping kinks are not told apart, noise is not met.
"""

import argparse

import numpy as np
import torch

from smpcore import signals, smp
from smpcore.experiments.benchmarks import in_turns, scipy_composition


def main() -> None:
    """Print seconds, their ratio, and how near each comes to the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--samples", type=int, default=10_001)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    smooth = signals.gaussian_process("rbf", options.samples, 20.0, count=options.signals, length_scale=0.5)
    kinked = signals.hinge_signals(smooth.times, 40, count=options.signals, seed=1)
    values, spacing = smooth.values + kinked.values, 20.0 / (options.samples - 1)
    array = values.numpy()

    def with_threads(count):
        def call():
            torch.set_num_threads(count)
            return smp(array, spacing)
        return call

    work = {"SciPy, 1 thread": lambda: scipy_composition(array, spacing),
            "smp, 1 thread": with_threads(1), "smp, 2 threads": with_threads(2)}
    seconds = in_turns(work, options.rounds)
    slowest = seconds["SciPy, 1 thread"]
    for name, call in work.items():
        read = np.mean(call() / kinked.smp.numpy())
        print(f"{name:16s} {seconds[name]:.3f} s, {slowest / seconds[name]:.2f} times as fast as SciPy, "
              f"reads {read:.4f} of the truth")


if __name__ == "__main__":
    main()
