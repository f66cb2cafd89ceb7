"""Bad input to the rules of single blocks: each gets a sentence that says what was wrong."""

import math

import pytest
import torch

from smpcore import propagation

I2 = torch.eye(2, dtype=torch.float64)
ONES = torch.ones(2, 2, dtype=torch.float64)
LAGS = torch.arange(400, dtype=torch.float64) * 0.05
FINE = math.sqrt(5) * 1e-3 * torch.arange(2000, dtype=torch.float64)
RBF = torch.exp(-(LAGS**2) / 2)


def two_slope(**changes):
    usual = {"mean": 0.0, "var": 1.0, "slope_var": 1.0, "duration": 1.0}
    return propagation.two_slope_smp(**{**usual, **changes})


def window(value_cov=I2, slope_cov=I2, duration=1.0, **rest):
    return propagation.max_pool_smp(value_cov, slope_cov, duration, **rest)


def std(r=RBF, spacing=0.05, **rest):
    return propagation.two_slope_smp_std(r, spacing, **rest)


def jagged():
    """Harmless at every fifth lag, at which 1,200 are tested for being an autocovariance, and wild in between."""
    lags = torch.arange(1200)
    wild = 0.3 * (-1.0) ** lags.double() * ((lags > 150) & (lags % 5 != 0))
    return torch.exp(-((0.05 * lags.double()) ** 2) / 2) + wild


REFUSED = [
    (lambda: two_slope(var=0.0), ValueError, "var = 0: it has to be positive; .* leave it out"),
    (lambda: two_slope(var=torch.tensor([1.0, -2.0])), ValueError, "var = -2 at index 1"),
    (lambda: two_slope(slope_var=0.0), ValueError, "slope_var = 0: it has to be positive"),
    (lambda: two_slope(duration=-1.0), ValueError, "duration = -1: it must not be negative"),
    (lambda: two_slope(smp_in=-1.0), ValueError, "smp_in = -1"),
    (lambda: two_slope(mean=math.nan), ValueError, "mean holds NaN or infinity"),
    (lambda: two_slope(mean=torch.tensor([[0.0, math.inf]])), ValueError, r"infinity at index \(0, 1\)"),
    (lambda: two_slope(mean="high"), TypeError, "mean has to be a number or a tensor, not str"),
    (lambda: two_slope(mean=torch.tensor(1j)), TypeError, "mean is complex"),
    (lambda: two_slope(mean=torch.zeros(2), var=torch.ones(3)), ValueError,
     r"sizes do not match: mean \(2,\), var \(3,\)"),
    (lambda: two_slope(slopes=(1.0,)), ValueError, "a pair is needed"),
    (lambda: window(value_cov=torch.tensor([[1.0, 0.5], [0.2, 1.0]])), ValueError,
     "value_cov is not symmetric"),
    (lambda: window(slope_cov=torch.tensor([[1.0, 2.0], [2.0, 1.0]])), ValueError,
     "slope_cov is not positive semi-definite: its lowest eigenvalue is -1"),
    (lambda: window(value_cov=-I2), ValueError, "value_cov is not positive semi-definite"),
    (lambda: window(value_cov=I2[0]), ValueError, r"value_cov has shape \(2,\): it has to be \(..., k, k\)"),
    (lambda: window(value_cov=torch.eye(17), slope_cov=torch.eye(17)), ValueError,
     "a window of 17 signals: 1 to 16"),
    (lambda: window(slope_cov=torch.eye(3)), ValueError, "sizes do not match"),
    (lambda: window(mean=torch.zeros(3)), ValueError, "sizes do not match"),
    (lambda: window(I2[:1, :1], I2[:1, :1], mean=torch.zeros(3)), ValueError, "windows of 1 signals"),
    (lambda: window(duration=-1.0), ValueError, "duration = -1"),
    (lambda: window(duration=torch.ones(2)), ValueError, r"duration has shape \(2,\): it is one number"),
    (lambda: window(smp_in=-0.5), ValueError, "smp_in = -0.5"),
    (lambda: window(value_cov=ONES), ValueError, "signals 0 and 1 of window 0 never differ in value"),
    (lambda: propagation.linear_smp(torch.ones(3), torch.ones(3)), ValueError,
     r"weight has shape \(3,\): it has to be \(out, in\)"),
    (lambda: propagation.linear_smp(torch.ones(2, 3), torch.ones(4)), ValueError, "takes 3 inputs"),
    (lambda: propagation.linear_smp(torch.ones(2, 3), -torch.ones(3)), ValueError, "smp_in = -1"),
    (lambda: propagation.shared_linear_smp(torch.ones(2, 3), torch.ones(3)), ValueError,
     r"jumps has shape \(3,\)"),
    (lambda: propagation.random_linear_smp(1.0, torch.ones(3)), ValueError, r"jumps has shape \(3,\)"),
    (lambda: propagation.random_linear_smp(-1.0, torch.ones(2, 3)), ValueError, "weight_std = -1"),
    (lambda: std(RBF[None]), ValueError, r"shape \(1, 400\): it has to be \(L,\) with at least 8"),
    (lambda: std(RBF[:5]), ValueError, "at least 8 lags"),
    (lambda: std(-RBF), ValueError, "autocovariance is -1 at lag 0"),
    (lambda: std(torch.where(LAGS == 1.0, 2.0, RBF)), ValueError, "is 2 at lag 20, more than 1 at lag 0"),
    (lambda: std((1 - LAGS**2).clamp(min=0)), ValueError, "not positive semi-definite"),
    (lambda: std(torch.exp(-LAGS)), ValueError, "corner at lag 0"),
    (lambda: std(RBF[::20], 1.0), ValueError, "spacing of 1 is too coarse"),
    (lambda: std(torch.ones(50)), ValueError, "never moves"),
    (lambda: std((1 + math.sqrt(3) * LAGS) * torch.exp(-math.sqrt(3) * LAGS)), ValueError, "slope is rough, such as"),
    (lambda: std(torch.exp(-(LAGS[:400] / 50) ** 2 / 2).float(), 0.001), ValueError,
     "rounding of float32 blurs by .* give it in float64"),
    (lambda: std(((1 + FINE + FINE**2 / 3) * torch.exp(-FINE)).float().double(), 1e-3), ValueError,
     r"falls by .* rounding of float32 blurs by \d+%: give it in float64"),
    (lambda: std(torch.exp(-(LAGS**2) / 2e4) * torch.cos(3 * LAGS)), ValueError,
     "comes back to within .* of its 1 at lag 63: .* finer one"),
    (lambda: std(jagged()), ValueError, "gives a variance of -.* too coarse for what it does between them"),
    (lambda: std(spacing=0.0), ValueError, "spacing = 0: it has to be positive"),
    (lambda: std(spacing=torch.ones(2)), ValueError, r"spacing has shape \(2,\)"),
    (lambda: std(slopes=1.0), ValueError, "a pair is needed"),
    (lambda: propagation.maximum_smp(torch.ones(3, 2), torch.ones(4, 2)), ValueError,
     r"both have to be \(..., P, k\)"),
    (lambda: propagation.simulated_spread(None, 1), ValueError, "at least two signals"),
    (lambda: propagation.convex_unit_smp(torch.relu, I2, I2, 1.0), ValueError, "one output for each row"),
    (lambda: propagation.convex_unit_smp(torch.relu, I2, torch.eye(3), 1.0), ValueError,
     "sizes do not match"),
]


@pytest.mark.parametrize(("call", "kind", "sentence"), REFUSED, ids=[case[2][:40] for case in REFUSED])
def test_bad_input_gets_a_sentence(call, kind, sentence):
    with pytest.raises(kind, match=sentence):
        call()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_two_devices_are_refused():
    with pytest.raises(ValueError, match="move them to one"):
        two_slope(mean=torch.zeros(2), var=torch.ones(2, device="cuda"))
