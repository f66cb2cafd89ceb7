"""Smooth units: shapes, bounds, derivatives."""

import math

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from smpcore.smoothing import LogSumExpPool1d, LogSumExpPool2d, LogSumExpPool3d
from smpcore.smoothing.soft_units import SoftUnit, softened
from smpcore.units import describe

POOLS = {1: (LogSumExpPool1d, nn.MaxPool1d), 2: (LogSumExpPool2d, nn.MaxPool2d), 3: (LogSumExpPool3d, nn.MaxPool3d)}
SETTINGS = [(size, stride, padding, dilation, ceil) for size in (1, 2, 3) for stride in (None, 1, 2, 3)
            for padding in (0, 1) if 2 * padding <= size for dilation in (1, 2) for ceil in (False, True)]


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_a_pool_has_max_poolings_shapes_and_stays_within_its_bound(dimensions):
    soft_pool, max_pool = POOLS[dimensions]
    for side in (5, 6):
        x = drawn(2, 3, *[side] * dimensions)
        for size, stride, padding, dilation, ceil in SETTINGS:
            expected = max_pool(size, stride, padding, dilation, ceil_mode=ceil)(x)
            found = soft_pool(size, 5.0, stride, padding, dilation, ceil).double()(x)
            assert found.shape == expected.shape
            excess = found - expected
            assert float(excess.min()) > -1e-12
            assert float(excess.max()) < math.log(size**dimensions) / 5.0 + 1e-12


def test_a_pool_tends_to_the_maximum():
    x = drawn(1, 2, 9, 8)
    expected = nn.MaxPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True)(x)
    excess = [float((LogSumExpPool2d((3, 2), beta, (2, 1), (1, 0), ceil_mode=True).double()(x) - expected).abs().max())
              for beta in (1.0, 10.0, 100.0, 1e7)]
    assert excess == sorted(excess, reverse=True)
    assert excess[-1] < 1e-6


def test_a_pool_takes_inputs_without_a_batch_and_single_precision():
    x = drawn(3, 7, 7).float()
    found = LogSumExpPool2d(2, 3.0)(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, LogSumExpPool2d(2, 3.0)(x[None])[0])
    large = LogSumExpPool2d(2, 3.0)(1e30 * x)
    torch.testing.assert_close(large, nn.functional.max_pool2d(1e30 * x, 2))


def test_a_pools_derivatives_are_right():
    pool = LogSumExpPool2d(3, 2.0, 2, 1, ceil_mode=True).double()
    x = drawn(1, 2, 6, 5).requires_grad_()
    assert torch.autograd.gradcheck(pool, x, check_forward_ad=True)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(pool(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    torch.testing.assert_close(tangent, torch.ones_like(tangent))  # weights within a window add up to 1


def test_a_pool_needs_no_more_memory_than_the_sides_of_its_window():
    """A window of 15 × 15 at stride 1: by the product of its sides it would hold 225 times its input."""
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor):
                sizes.append(found.numel())
            return found

    x = drawn(1, 1, 40, 40)
    pool = LogSumExpPool2d(15, 1.0, 1, 7).double()
    with Sizes():
        pool(x)
    assert max(sizes) <= 15 * 47 * 40


REFUSED = {
    "beta": (lambda: LogSumExpPool2d(2, 0.0), "beta = 0.0: the sharpness must be positive"),
    "infinite beta": (lambda: LogSumExpPool1d(2, math.inf), "beta = inf: the sharpness must be positive and finite"),
    "padding": (lambda: LogSumExpPool2d(2, 1.0, padding=2)(torch.ones(1, 1, 6, 6)),
                "does not fit it: .*padding should be at most half"),
    "map": (lambda: LogSumExpPool1d(4, 1.0)(torch.ones(1, 1, 3)),
            r"map of \(3,\) is smaller than the pooling window"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_pool_refuses(name):
    build, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence):
        build()


UNITS = {
    "relu": ((), {}), "leaky_relu": ((0.2,), {}), "rrelu": ((0.1, 0.3), {}), "elu": ((0.5,), {}), "selu": ((), {}),
    "abs": ((), {}), "threshold": ((0.3, 0.3), {}), "hardtanh": ((-0.5, 0.8), {}), "relu6": ((), {}),
    "hardsigmoid": ((), {}), "hardswish": ((), {}), "softshrink": ((0.4,), {}), "clamp": ((), {"max": 0.3}),
    "clamp_min": ((0.1,), {}),
    "prelu": ((torch.tensor([0.1, 0.5, -0.2], dtype=torch.float64),), {}),
}


@pytest.mark.parametrize("op", UNITS)
def test_a_unit_stays_within_its_bound(op):
    """log(2)/beta times the change of derivative at each threshold; for hardswish that of hardsigmoid, times x."""
    args, kwargs = UNITS[op]
    x = 8 * drawn(200, 3)
    seen = describe(op, (x, *args), kwargs)
    for beta in (0.5, 5.0, 500.0):
        soft = softened(op, seen, (x, *args), kwargs).double()
        soft.beta.fill_(beta)
        rises = sum(abs(torch.as_tensor(hinge.above - hinge.below)).max() for hinge in seen.hinges)
        bound = math.log(2) / beta * (float(x.abs().max()) / 3 if op == "hardswish" else float(rises))
        assert float((soft(x) - seen.output(x)).abs().max()) <= bound * (1 + 1e-9) + 1e-12


def test_a_unit_keeps_its_smoothness_in_single_precision():
    """Far above the threshold, where torch's softplus turns into the identity, it is not exactly the identity yet, and
    far out it neither overflows nor loses its slope."""
    x = torch.linspace(-300, 300, 1201, requires_grad=True)
    soft = softened("relu", describe("relu", (x,), {}), (x,), {})
    y = soft(x)
    slope = torch.autograd.grad(y.sum(), x)[0]
    assert bool(y.isfinite().all() and slope.isfinite().all())
    torch.testing.assert_close(slope, torch.sigmoid(x.detach()), rtol=1e-5, atol=1e-7)
    assert float(slope.diff().abs().max()) < 0.5 / 4 * 1.001  # the second derivative is 1/4 at most


def test_a_unit_has_both_derivatives():
    x = drawn(20).requires_grad_()
    soft = SoftUnit(describe("hardswish", (3 * x,), {}), 4.0).double()
    assert torch.autograd.gradcheck(soft, x, check_forward_ad=True)


def test_spread_is_that_of_the_windows():
    x = drawn(4, 2, 6, 6)
    expected = nn.functional.unfold(x.reshape(8, 1, 6, 6), 3, stride=2).var(1, correction=0).mean().sqrt()
    assert LogSumExpPool2d(3, 1.0, 2).spread(x) == pytest.approx(float(expected))
    # Places beyond the border are not counted.
    assert LogSumExpPool2d(3, 1.0, 2, padding=1).spread(torch.ones(1, 1, 6, 6)) == pytest.approx(0.0, abs=1e-7)
