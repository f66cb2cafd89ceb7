"""The cost of attribution on image models, compared with a forward pass: `python ci/benchmark_architectures.py`

Models of `transformers` with random weights, images of 224×224, float64; the two take turns over the same
samples, and the ratio of their fastest rounds is printed, for a busy machine slows both. Memory is the largest
that the process has had resident, the models before it included.
"""

import argparse
import os
import resource

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from smpcore import attribute, device
from smpcore.experiments.architectures import ARCHITECTURES, build, logits
from smpcore.experiments.benchmarks import in_turns
from smpcore.paths import line


def main() -> None:
    """Print, for each model, seconds of a forward pass and of attribution, their ratio, and what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    home = device.resolve(options.device)
    draw = torch.Generator().manual_seed(1)
    start, end = (torch.randn(3, 224, 224, generator=draw).double().to(home) for _ in range(2))
    path, times = line(start, end), torch.linspace(0, 1, options.samples, device=home, dtype=torch.float64)
    print(f"{options.samples} samples, {options.threads} thread(s), {device.describe(home)}")
    for name in ARCHITECTURES:
        model, seen = build(name).to(home).double(), []

        def forward(model=model):
            with torch.no_grad():
                for part in times.split(8):
                    logits(model(path(part)))

        def measured(model=model, seen=seen):
            seen[:] = [attribute(model, path, times, outputs=logits)]

        seconds = in_turns({"forward": forward, "attribute": measured}, options.rounds)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:9s} forward {seconds['forward']:7.3f} s  attribute {seconds['attribute']:7.3f} s  "
              f"ratio {seconds['attribute'] / seconds['forward']:5.1f}  "
              f"switches {sum(layer.switches for layer in seen[0].layers):9,d}  "
              f"SMP {float(seen[0].total[0]):8.2f}  memory {memory:.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
