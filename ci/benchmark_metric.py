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
from scipy.ndimage import maximum_filter, median_filter

from smpcore import signals, smp
from smpcore.benchmarks import in_turns


def scipy_composition(
    values: np.ndarray, spacing: float, window: int = 9, threshold: float = 5.0
) -> np.ndarray:
    """Residual of a running median, neighbours added in pairs, local maxima over a multiple of the MAD."""
    second = np.diff(values, 2) / spacing
    residual = second - median_filter(second, size=(1, window))
    deviation = 1.4826 * np.median(np.abs(residual), axis=-1, keepdims=True)
    pairs = np.abs(residual[:, 1:] + residual[:, :-1])
    peaks = (pairs == maximum_filter(pairs, size=(1, 3))) & (pairs > threshold * deviation)
    return np.where(peaks, pairs, 0).sum(-1)


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
