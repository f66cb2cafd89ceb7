"""Which modules count as one elementwise unit, and where a composed one bends."""

import pytest
import torch
from cases import Then
from torch import nn

from smpcore.inspection.elementwise_modules import elementwise

F64 = torch.float64


class Swish(nn.Module):
    """x relu6(x + 3)/6, with its unit in a module of its own, in place."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x):
        return x * self.act(x + 3) / 6


# module, name, thresholds with the derivative on either side
@pytest.mark.parametrize(("module", "name", "hinges"), [
    (nn.ReLU(inplace=True), "relu", [(0, 0, 1)]),
    (nn.GELU(), "gelu", []),
    (Swish(), "act:hardtanh", [(-3, 0, -0.5), (3, 1.5, 1)]),
    (Then(lambda x: x.relu() - 0.25 * (-x).relu()), "relu", [(0, 0.25, 1)]),
    (Then(lambda x: x.relu().square()), "relu", []),
    (Then(lambda x: (2 * x - 3).clamp(-1, 1)), "clamp", [(1, 0, 2), (2, 2, 0)]),
    (Then(lambda x: x.exp() / (1 + x.exp())), "Then", []),
])
def test_a_composed_module_bends_where_its_units_switch(module, name, hinges):
    found = elementwise(module)
    assert found.name == name
    x = torch.linspace(-4, 4, 9, dtype=F64)[:, None]
    seen = found.describe(x)
    assert [hinge[:3] for hinge in seen.hinges] == [pytest.approx(hinge, rel=1e-6, abs=1e-6) for hinge in hinges]
    with torch.no_grad():
        torch.testing.assert_close(seen.output(x), module(x.clone()))
    assert torch.equal(x, torch.linspace(-4, 4, 9, dtype=F64)[:, None])


@pytest.mark.parametrize("module", [
    nn.Softmax(1), nn.LayerNorm(4), nn.Linear(3, 3), nn.GLU(), nn.MaxPool1d(2), nn.Sequential(nn.ReLU()),
    Then(lambda x: torch.where(x > 0, x, 0 * x)), Then(torch.round), Then(lambda x: x.flip(0)),
    Then(lambda x: torch.maximum(x, 0 * x)), Then(lambda x: torch.clamp(x, -x.exp())), Then(lambda x: x),
    Then(lambda x: 2 * nn.functional.hardshrink(x)),
], ids=str)
def test_what_is_not_known_to_be_elementwise_is_none(module):
    assert elementwise(module) is None
