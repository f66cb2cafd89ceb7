"""Every public function on a GPU gives what it gives on the CPU; what has a test of its own kind is not repeated here.

Each case runs on the CPU twice as well, so that a case which is itself wrong shows on every machine.
"""

import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from smpcore import attribute, find_kinks, propagation, signals, smp, trace_line
from smpcore._architectures import ARCHITECTURES
from smpcore.benchmarks import finely_sampled_smp, forward_pass, transform_line
from smpcore.models import cnn, mlp, reference_cnn, reference_line
from smpcore.paths import blob, circle, line

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none here")
ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, needs_gpu])]


def tensor(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def times(device, samples=101, end=1.0):
    return torch.linspace(0, end, samples, dtype=torch.float64).to(device)


def kinked(device):
    grid = times("cpu", 4001, 20.0)
    smooth = signals.gaussian_process("rbf", 4001, 20.0, length_scale=0.5, seed=0)
    return (smooth.values + signals.hinge_signals(grid, 20, seed=1).values)[0].to(device)


def short_line(device):
    start, end = reference_line()
    return start.to(device), (start + 0.1 * (end - start)).to(device)


def attributed(model, path, grid, **options):
    found = attribute(model, path, grid, **options)
    return [found.total, found.value_jumps, found.values, found.slopes, *[layer.smp for layer in found.layers]]


def predicted(device, **options):
    model = cnn((1, 8, 8), channels=4, depth=2, padding_mode="circular").to(device)
    found = propagation.predict_network(model, circle((1, 8, 8), seed=0), times(device, 17, 6.28), **options)
    return [found.total, *[layer.smp for layer in found.layers]]


def tied(device):
    """Overlapping windows, units that share a kink, value jumps: what is grouped before it is added."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU6(), nn.MaxPool2d(3, 1), nn.Hardshrink(0.2), nn.Flatten(),
                          nn.Linear(3 * 16, 2))
    for place, weight in enumerate(model.parameters()):
        weight.data = 0.3 * tensor(*weight.shape, seed=place)
    return attributed(model.double().to(device), line(tensor(1, 8, 8).to(device), tensor(1, 8, 8, seed=9).to(device)),
                      times(device))


def covariances(device):
    return [matrix.to(device) for matrix in signals.picture_covariances(2, 2)]


def traced(device):
    found = trace_line(reference_cnn().to(device), *short_line(device))
    assert found.certified
    return [found.times, found.jumps, found.smp]


CASES = {
    "smp of a kinked signal": lambda d: [smp(kinked(d), 0.005)],
    "smp at a lag": lambda d: [smp(kinked(d), 0.005, lag=3)],
    "find_kinks": lambda d: [*find_kinks(kinked(d), 0.005)],
    "attribute, reference network": lambda d: attributed(
        reference_cnn().to(d), line(*short_line(d)), times(d), outputs=[0]),
    "attribute, in small chunks": lambda d: attributed(reference_cnn().to(d), line(*short_line(d)), times(d), chunk=7),
    "attribute, what switches together": tied,
    "attribute, a moving picture": lambda d: attributed(
        cnn((1, 16, 16), 2, channels=4, depth=2, pooling="max").to(d), blob(size=16), times(d)),
    "attribute, many outputs": lambda d: attributed(mlp(6, 5, width=16, depth=2).to(d), circle(6), times(d)),
    "trace_line": traced,
    "transform_line": lambda d: [transform_line(reference_cnn().to(d), *short_line(d)).times],
    "finely_sampled_smp": lambda d: [torch.tensor(finely_sampled_smp(reference_cnn().to(d), *short_line(d), 101))],
    "forward_pass": lambda d: [forward_pass(reference_cnn().to(d), line(*short_line(d)), times(d))],
    "linear_smp": lambda d: [propagation.linear_smp(tensor(3, 5).to(d), tensor(5, seed=1).abs().to(d))],
    "shared_linear_smp": lambda d: [propagation.shared_linear_smp(tensor(3, 5).to(d), tensor(7, 5, seed=1).to(d))],
    "random_linear_smp": lambda d: [propagation.random_linear_smp(0.7, tensor(7, 5).to(d))],
    "two_slope_smp": lambda d: [propagation.two_slope_smp(
        tensor(4).to(d), tensor(4, seed=1).exp().to(d), tensor(4, seed=2).exp().to(d), 3.0, 0.5, (1.0, 0.2))],
    "two_slope_smp_std": lambda d: [propagation.two_slope_smp_std(torch.exp(-2 * times(d, 801, 8.0) ** 2), 0.01)],
    "max_pool_smp": lambda d: [propagation.max_pool_smp(*covariances(d), 5.0)],
    "max_pool_smp_estimate": lambda d: [*propagation.max_pool_smp_estimate(*covariances(d), 5.0)][:1],
    "maximum_smp": lambda d: [propagation.maximum_smp(tensor(3, 50, 4).to(d), tensor(3, 50, 4, seed=1).to(d))],
    "convex_unit_smp": lambda d: [propagation.convex_unit_smp(
        lambda x: x.amax(-1), *covariances(d), 5.0, points=512)[0]],
    "predict_network": predicted,
    "predict_network, measured": lambda d: predicted(d, moments="measured", reference=circle((1, 8, 8), seed=5)),
    "gaussian_process": lambda d: [signals.gaussian_process("matern52", 101, 5.0, seed=3, device=d).values],
    "hinges": lambda d: [*signals.hinges(times(d), tensor(3, 4).abs().to(d), tensor(3, 4, seed=1).to(d))],
    "hinge_signals": lambda d: [signals.hinge_signals(times(d), 5, seed=2).values],
    "moving_pictures": lambda d: [signals.moving_pictures(21, 3.0, height=4, width=4, device=d).values],
}


@functools.cache
def on_the_cpu(name):
    return [torch.as_tensor(each) for each in CASES[name]("cpu")]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_a_device_gives_what_the_cpu_gives(name, device):
    """Sums are taken in another order there: float64 agrees to some 1e-12 of the largest, and 1e-9 is allowed."""
    here, there = on_the_cpu(name), [torch.as_tensor(each) for each in CASES[name](device)]
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        assert other.device.type == device or other.dim() == 0
        largest = float(one.abs().max()) if one.numel() else 0.0
        torch.testing.assert_close(other.cpu(), one, rtol=1e-9, atol=1e-9 * largest)


@pytest.mark.parametrize("device", DEVICES)
def test_single_precision_is_near_double(device):
    """Rounding moves a switch across a sample now and then; each of 2,470 kinks is 0.04% of the whole on average,
    and a dozen of them are allowed."""
    model = reference_cnn().to(device)
    path = line(*(point.to(device) for point in reference_line()))
    double, single = (attribute(model, path, times(device, 201), dtype=kind) for kind in (torch.float64, torch.float32))
    assert single.total.dtype == torch.float32
    torch.testing.assert_close(single.total.double(), double.total, rtol=5e-3, atol=0)
    largest = float(double.slopes.abs().max())
    torch.testing.assert_close(single.slopes.double(), double.slopes, rtol=0, atol=1e-4 * largest)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_image_models_on_a_gpu(name):
    pytest.importorskip("transformers", reason="the extra 'architectures' is not installed")
    from smpcore._architectures import build, logits
    ends = [tensor(3, 224, 224, seed=seed) for seed in (1, 2)]
    here = attribute(build(name), line(*ends), times("cpu", 3), outputs=logits)
    there = attribute(build(name).cuda(), line(*[each.cuda() for each in ends]), times("cuda", 3), outputs=logits)
    torch.testing.assert_close(there.total.cpu(), here.total, rtol=1e-6, atol=1e-9)


@pytest.mark.gpu
@needs_gpu
def test_memory_of_a_gpu_is_given_back():
    model, path = reference_cnn().cuda(), line(*(point.cuda() for point in reference_line()))
    attribute(model, path, times("cuda", 65))
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        attribute(model, path, times("cuda", 65))
    assert torch.cuda.memory_allocated() <= before + 2**16


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebooks_on_a_gpu(notebook, tmp_path):
    """With their claims asserted, as they are on the CPU."""
    done = subprocess.run([sys.executable, "ci/run.py", "--here", notebook, "-p", "device", "cuda", "--output",
                           str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert list(tmp_path.rglob(f"{notebook}.json"))
