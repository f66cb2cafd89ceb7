"""Rice's formula for signals that are not stationary, and the bound by which pairs of a window are drawn."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import multivariate_normal

from smpcore.propagation.closed_forms.gaussian_max import leads_at, leads_at_most, ties
from smpcore.propagation.closed_forms.unit_rule import crossings

F64 = torch.float64


@pytest.mark.parametrize(("level", "var", "slope_var", "cross", "drift"), [
    (0.4, 1.0, 2.0, 0.0, 0.0), (0.4, 1.0, 2.0, 1.1, 0.0), (-0.7, 0.5, 3.0, -0.9, 1.5), (0.3, 2.0, 0.6, 1.0, -4.0)])
def test_crossings_are_the_joint_densitys_integrals(level, var, slope_var, cross, drift):
    joint = multivariate_normal([0.0, drift], [[var, cross], [cross, slope_var]])
    found = crossings(*torch.tensor([level, var, slope_var, cross, drift], dtype=F64))
    for part, power in zip(found, (2, 1), strict=True):
        wanted = quad(lambda v, power=power: abs(v) ** power * joint.pdf([level, v]), -40, 40, points=[0, drift],
                      epsabs=1e-12, limit=200)[0]
        assert float(part) == pytest.approx(wanted, rel=1e-7)
    if cross == drift == 0:
        for one, other in zip(found, crossings(*torch.tensor([level, var, slope_var], dtype=F64)), strict=True):
            torch.testing.assert_close(one, other)


def test_a_slope_that_the_value_determines():
    """Behind one exponential, x' = −2 (x + 1): at x = 0 the slope is −2, whatever its mean and variance."""
    rate, number = crossings(*torch.tensor([-0.5, 1.0, 4.0, -2.0, -3.0], dtype=F64))
    density = math.exp(-(0.5**2) / 2) / math.sqrt(2 * math.pi)
    assert float(rate) == pytest.approx(4 * density)
    assert float(number) == pytest.approx(2 * density)


@pytest.mark.parametrize("k", [3, 5])
def test_a_pair_leads_at_most_as_often_as_against_each_other_alone(k):
    generator = torch.Generator().manual_seed(k)
    root = torch.randn(50, k, k, dtype=F64, generator=generator)
    cov, mean = root @ root.mT, torch.randn(50, k, dtype=F64, generator=generator)
    leads = torch.rand(50, k, generator=generator) < 0.8
    found = ties(cov, cov, mean, leads)
    bound, chance = leads_at_most(cov, mean, found.first, found.second, leads), leads_at(found, 256).mean(0)
    # Exact with one other; with three the chance is integrated, to about 1e-3.
    here = leads[:, found.first] & leads[:, found.second]
    if k == 3:
        torch.testing.assert_close(bound[here], chance[here], rtol=0, atol=1e-9)
    assert float((chance - bound)[here].max()) < 2e-3
    assert float(bound.min()) >= 0
