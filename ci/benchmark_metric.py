"""How fast is `smp`, beside the plain estimator composed of SciPy calls? `python ci/benchmark_metric.py`

Two tables, float64, each signal a smooth Gaussian process with 40 hinges: 200 signals of 10,001 samples with one
thread and with two, then 40 signals of several lengths with one thread. The composition has one thread, because SciPy's
filters use only one. All are timed alternately, and the fastest rounds are compared, because other programs can only
slow a round down. The composition does less than `smp`: it fits no background, does not separate overlapping kinks, and
does not treat noise; on short signals, where kinks crowd, this work takes `smp` most of its time.
"""

import argparse

import numpy as np
import torch

from smpcore import signals, smp
from smpcore.experiments.benchmarks import in_turns, scipy_composition

LENGTHS = (501, 2001, 8001, 32_001)


def main() -> None:
    """Print seconds, their ratio, and how close each is to the truth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--samples", type=int, default=10_001)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    compare(options.signals, options.samples, options.rounds, threads=(1, 2))
    for samples in LENGTHS:
        compare(40, samples, options.rounds, threads=(1,))


def compare(count: int, samples: int, rounds: int, threads: tuple[int, ...]) -> None:
    """Print one comparison: ``count`` signals of ``samples`` samples."""
    smooth = signals.gaussian_process("rbf", samples, 20.0, count=count, length_scale=0.5)
    kinked = signals.hinge_signals(smooth.times, 40, count=count, seed=1)
    array, spacing = (smooth.values + kinked.values).numpy(), 20.0 / (samples - 1)

    def with_threads(number):
        def call():
            torch.set_num_threads(number)
            return smp(array, spacing)
        return call

    work = {"SciPy, 1 thread": lambda: scipy_composition(array, spacing)}
    work |= {f"smp, {number} thread{'s' * (number > 1)}": with_threads(number) for number in threads}
    seconds = in_turns(work, rounds)
    print(f"{count} signals of {samples} samples")
    for name, call in work.items():
        read = np.mean(call() / kinked.smp.numpy())
        print(f"  {name:16s} {1000 * seconds[name]:8.1f} ms, {seconds['SciPy, 1 thread'] / seconds[name]:.2f} times as "
              f"fast as SciPy, reads {read:.4f} of the truth")


if __name__ == "__main__":
    main()
