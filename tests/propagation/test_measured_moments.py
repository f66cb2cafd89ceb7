"""Trained networks predicted from what their units do along another path."""

import math

import pytest
import torch
from torch import nn

from smpcore import attribute, models, paths, propagation
from smpcore.propagation import measured_moments

pytestmark = pytest.mark.numeric

F64 = torch.float64
TAU = 2 * math.pi


def test_measured_moments_run_on_the_reference_path_only():
    model = models.mlp(32, width=256, depth=2, seed=3)
    times = torch.linspace(0, TAU, 201, dtype=F64)

    ran = []
    model[0].register_forward_hook(lambda module, given, out: ran.append(given[0].detach().clone()))
    along = paths.circle(32, seed=1)
    found = propagation.predict_network(model, paths.circle(32, seed=2), times, moments="measured", reference=along)
    # Stretches share their ends, and each is gone along once: there is no pooling.
    seen = torch.cat(ran)
    assert len(times) <= len(seen) <= 1.15 * len(times)
    assert float(torch.cdist(seen, along(times)).amin(1).max()) < 1e-5
    truth = attribute(model, paths.circle(32, seed=2), times)
    # One draw of 256 units a layer on another circle: a fifth covers its scatter.
    assert float(found.total[0]) == pytest.approx(float(truth.total[0]), rel=0.2)
    assert found.moments == "measured"
    assert [a.name for a in found.layers] == [a.name for a in truth.layers]


def test_measured_windows_behind_a_relu():
    model = models.cnn((1, 10, 10), channels=24, depth=1, pooling="max", seed=1)
    times = torch.linspace(0, TAU, 151, dtype=F64)
    found = propagation.predict_network(model, paths.circle((1, 10, 10), seed=2), times, moments="measured",
                                        reference=paths.circle((1, 10, 10), seed=1))
    truth = attribute(model, paths.circle((1, 10, 10), seed=2), times)
    gap = abs(float(found.total[0]) - float(truth.total[0]))
    # Sinusoids in place of Gaussian signals, and one network: a quarter, and the draw of windows.
    assert gap < 0.25 * float(truth.total[0]) + 3 * float(found.total_se[0])


class Twice(nn.Module):
    """Two poolings of one map."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Conv2d(1, 6, 3), nn.Linear(6 * 16, 2)

    def forward(self, x):
        x = torch.relu(self.first(x))
        y = nn.functional.max_pool2d(x, 2) + nn.functional.max_pool2d(x, 3, 2, 1)
        return self.out(y.flatten(1))


@pytest.mark.parametrize("make", [
    lambda: models.cnn((1, 10, 10), channels=8, depth=2, pooling="max", seed=1),
    lambda: models.cnn((1, 10, 10), channels=8, depth=1, pooling="average", activation=lambda: nn.Hardtanh(-0.5, 1.0)),
    lambda: models.he_initialise(Twice().double().eval(), 0),
])
def test_parts_of_the_path_give_what_the_whole_gives(monkeypatch, make):
    model, shape = make(), (1, 10, 10)
    times = torch.linspace(0, TAU, 41, dtype=F64)

    def found():
        return propagation.predict_network(model, paths.circle(shape, seed=2), times, moments="measured",
                                           reference=paths.circle(shape, seed=1))

    whole = found()
    monkeypatch.setattr(measured_moments, "_NUMBERS", 20_000)
    parts = found()
    torch.testing.assert_close(parts.total, whole.total, rtol=1e-9, atol=0)
    for one, other in zip(parts.layers, whole.layers, strict=True):
        torch.testing.assert_close(one.smp, other.smp, rtol=1e-9, atol=1e-12)
        assert (one.how == "closed form") == (float(one.smp_se.max()) == 0)


def test_moments_of_parts_join():
    x, slope = torch.randn(2, 50, 3, dtype=F64, generator=torch.Generator().manual_seed(0)) + 1e6
    gains = torch.randn(2, 50, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    moments = measured_moments.Moments()
    weights = torch.rand(50, dtype=F64, generator=torch.Generator().manual_seed(2))
    for part in (slice(0, 1), slice(1, 20), slice(20, 50)):
        moments.add(weights[part], (x[part], slope[part]), gains[:, part])
    share = weights / weights.sum()
    mean = share @ x
    torch.testing.assert_close(moments.mean, mean)
    torch.testing.assert_close(moments.var, share @ (x - mean) ** 2, rtol=1e-7, atol=0)
    torch.testing.assert_close(moments.slope_var, share @ slope**2)
    torch.testing.assert_close(moments.size, torch.einsum("p,mpn->mn", share, gains.abs()))
