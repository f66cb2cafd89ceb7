"""Counts that others have proved, and that follow from Rice's formula: certified traces against laws."""

import math

import pytest
import torch
from torch import nn

from smpcore import models, trace_line

pytestmark = pytest.mark.numeric

ONE = {"dtype": torch.float64}


def counts(make, start, end, draws):
    traces = [trace_line(make(seed), start, end) for seed in range(draws)]
    assert all(trace.certified for trace in traces)
    found = torch.tensor([len(trace.times) for trace in traces], **ONE)
    return float(found.mean()), float(found.std()) / math.sqrt(draws)


@pytest.mark.parametrize(("width", "depth"), [(32, 2), (128, 2), (128, 5)])
def test_a_whole_line_has_one_kink_for_each_neuron(width, depth):
    """J. Kogan, H. Jananthan, J. Kepner, arXiv:2512.08091: Σ nᵢ + o(Σ nᵢ) + 1 regions, biases N(0, 1)."""
    def make(seed):
        net, generator = models.mlp(1, width=width, depth=depth, seed=seed), torch.Generator().manual_seed(seed + 1000)
        for layer in net[:-1]:
            if isinstance(layer, nn.Linear):
                layer.bias.data = torch.randn(width, **ONE, generator=generator)
        return net

    far = torch.tensor([1e5], **ONE)
    mean, error = counts(make, -far, far, 20)
    # Narrow layers and the line's finite length: two per cent.
    assert abs(mean - width * depth) < 0.02 * width * depth + 4 * error


@pytest.mark.parametrize(("width", "depth"), [(64, 1), (64, 3), (256, 2)])
def test_between_two_inputs_a_bias_free_network_has_neurons_times_the_angle_over_pi(width, depth):
    start, end = torch.randn(2, 64, **ONE, generator=torch.Generator().manual_seed(7))
    angle = math.acos(float(start @ end / start.norm() / end.norm()))
    mean, error = counts(lambda seed: models.mlp(64, width=width, depth=depth, seed=seed), start, end, 20)
    assert abs(mean - width * depth * angle / math.pi) < 0.02 * mean + 4 * error


def test_the_nearest_kink_is_as_far_as_the_inverse_of_the_number_of_neurons():
    """B. Hanin, D. Rolnick, arXiv:1901.09021."""
    start, end = torch.randn(2, 64, **ONE, generator=torch.Generator().manual_seed(7))
    at, products = torch.rand(200, 1, **ONE, generator=torch.Generator().manual_seed(0)), []
    for width in (64, 128, 256):
        kinks = [trace_line(models.mlp(64, width=width, depth=2, seed=seed), start, end).times for seed in range(12)]
        nearest = torch.tensor([float((at - times).abs().amin(1).mean()) for times in kinks])
        products.append((2 * width * float(nearest.mean()), 2 * width * float(nearest.std()) / math.sqrt(12)))
    for value, error in products[1:]:
        assert abs(value - products[0][0]) < 4 * math.hypot(error, products[0][1])


def test_depth_does_not_lengthen_curves():
    """B. Hanin, R. Jeong, D. Rolnick, arXiv:2102.10492: below the root of the mean square, which no depth changes."""
    start, end = torch.randn(2, 64, **ONE, generator=torch.Generator().manual_seed(50))
    bound = float((end - start).norm()) * math.sqrt(32 / (2 * 64))
    for depth in (1, 4, 8):
        lengths = []
        for seed in range(20):
            trace = trace_line(models.mlp(64, 32, width=64, depth=depth, seed=seed), start, end)
            lengths.append(float((trace.slopes.norm(dim=1) * trace.knots.diff()).sum()) / bound)
        lengths = torch.tensor(lengths)
        error = float(lengths.std()) / math.sqrt(20)
        assert 0.8 - 4 * error < float(lengths.mean()) < 1 + 4 * error
