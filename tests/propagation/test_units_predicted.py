"""Every elementwise unit of the table through both kinds of moments, against what is measured."""

import math

import pytest
import torch
from cases import UNITS, Then, shifted_leaky
from torch import nn

from smpcore import attribute, models, paths, propagation, units
from smpcore.units.elementwise import ELEMENTWISE

F64 = torch.float64
TAU = 2 * math.pi
TIMES = torch.linspace(0, TAU, 301, dtype=F64)
DRAWS, WIDTH, INPUTS = 8, 128, 32


def wander(seed):
    """A sum of six frequencies, so that a unit's input is nearly Gaussian along it."""
    weights = torch.randn(2, 6, INPUTS, dtype=F64, generator=torch.Generator().manual_seed(seed)) / math.sqrt(6)
    speeds = torch.arange(1, 7, dtype=F64)

    def path(t):
        turn = t[:, None] * speeds
        return torch.cos(turn) @ weights[0] + torch.sin(turn) @ weights[1]

    return path


def network(unit, seed):
    """``unit`` between two hidden layers, the second of which has ReLU: so a smooth one has something to pass on."""
    torch.manual_seed(seed)
    layers = [nn.Linear(INPUTS, WIDTH), unit, nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)]
    return models.he_initialise(nn.Sequential(*layers).double().eval(), seed)


ROWS = [case for case in UNITS if case.function is not None and not case.jumps and case.name != "clamp, tensors"]


def assert_predicted_as_measured(make, tolerance=0.08):
    """Mean SMP by layer over drawn networks: predicted from weights, and from another path, as it is measured."""
    path, reference = wander(1), wander(2)
    truths, laws, measured = [], [], []
    for seed in range(DRAWS):
        model = make(seed)
        truths.append(attribute(model, path, TIMES))
        laws.append(propagation.predict_network(model, path, TIMES))
        measured.append(propagation.predict_network(model, path, TIMES, moments="measured", reference=reference))
    names = [(layer.name, layer.kind) for layer in truths[0].layers]
    smp = torch.stack([torch.cat([layer.smp for layer in truth.layers]) for truth in truths])
    # Layers that one network shares with another scatter together: the error is the total's.
    for found, loose in ((laws, tolerance), (measured, 0.15)):
        assert [(layer.name, layer.kind) for layer in found[0].layers] == names
        each = torch.stack([torch.cat([layer.smp for layer in guess.layers]) for guess in found])
        error = (smp.std(0) + each.std(0)) / math.sqrt(DRAWS)
        gap = (each.mean(0) - smp.mean(0)).abs()
        assert bool((gap <= loose * smp.mean(0) + 4 * error).all()), (each.mean(0), smp.mean(0), error)


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_a_unit_is_predicted(case):
    assert_predicted_as_measured(lambda seed: network(Then(case.function), seed))


POOLED = {"relu": nn.ReLU, "leaky relu": lambda: nn.LeakyReLU(0.2), "prelu": nn.PReLU, "relu6": nn.ReLU6,
          "hardtanh": lambda: nn.Hardtanh(-0.5, 1.0), "softshrink": nn.Softshrink,
          "hardswish": lambda: Then(lambda x: nn.functional.hardswish(3 * x))}


@pytest.mark.parametrize("unit", POOLED)
def test_a_unit_below_average_pooling(unit):
    # 24 channels; law and measurement of the same networks, so that what their weights' sizes scatter drops out.
    shape, draws = (1, 10, 10), 20
    path, found = paths.circle(shape, seed=1), []
    for seed in range(draws):
        model = models.cnn(shape, channels=24, depth=2, pooling="average", activation=POOLED[unit], seed=seed)
        law = propagation.predict_network(model, path, TIMES)
        assert all(layer.how == "closed form" for layer in law.layers)
        found.append([float(each.total[0]) for each in (law, attribute(model, path, TIMES))])
    law, truth = torch.tensor(found, dtype=F64).T
    ratio = truth.mean() / law.mean()
    error = float((truth - ratio * law).std() / law.mean()) / math.sqrt(draws)
    assert abs(float(ratio) - 1) < 0.06 + 2 * error, (ratio, error)


@pytest.mark.parametrize("op", sorted(set(ELEMENTWISE) - {"hardshrink"}))
def test_every_elementwise_entry_is_among_them(op):
    seen = units.TABLE[op](torch.zeros(1), **{"prelu": {"weight": torch.ones(1)}, "threshold": {
        "threshold": 0.0, "value": 0.0}, "clamp": {"min": 0.0}, "clamp_min": {"min": 0.0}, "clamp_max": {"max": 0.0},
        "heaviside": {"values": torch.ones(1)}}.get(op, {}))
    if isinstance(seen, units.Hinges):
        assert any(case.name.split(",")[0] == op for case in ROWS), f"add a row for {op} to tests/cases.py"


def test_channels_may_have_settings_of_their_own():
    def make(seed):
        model = network(nn.PReLU(WIDTH), seed)
        model[1].weight.data.uniform_(-0.3, 0.6, generator=torch.Generator().manual_seed(seed))
        return model

    assert_predicted_as_measured(make)


def test_a_unit_that_no_table_has_is_known_as_function_and_module():
    assert_predicted_as_measured(lambda seed: network(units.Unit(shifted_leaky, 0.5), seed))


@pytest.mark.parametrize(("unit", "sentence"), [
    (nn.Hardshrink(), "1:hardshrink jumps in value at its thresholds, where SMP is infinite"),
    (Then(torch.round), "1:round has no rule"),
    (Then(lambda x: x * (x > 0)), "1:gt has no rule"),
    (Then(lambda x: torch.clamp(x, -x.exp(), None)), "1:(exp|neg) has no rule|several computed tensors"),
    (nn.PReLU(3), "1:prelu does not take what it gets"),
])
@pytest.mark.parametrize("kind", ["weights", "measured"])
def test_what_no_prediction_has_a_rule_for(unit, sentence, kind):
    given = {} if kind == "weights" else {"moments": "measured", "reference": wander(2)}
    with pytest.raises(ValueError, match=sentence):
        propagation.predict_network(network(unit, 0), wander(1), TIMES, **given)


HUGGING_FACE = ["gelu_10", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "gelu_python_tanh",
                "gelu_accurate", "laplace", "linear", "mish", "quick_gelu", "relu6", "silu", "sqrtsoftplus"]


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_activations_of_hugging_face(name):
    activations = pytest.importorskip("transformers.activations")
    assert_predicted_as_measured(lambda seed: network(activations.ACT2FN[name], seed), 0.1)


def test_a_square_behind_a_relu_leaves_no_kink():
    # What is left of the ReLU's in the measurement falls with the spacing.
    activations = pytest.importorskip("transformers.activations")
    model, path = network(activations.ACT2FN["relu2"], 0), wander(1)
    first, second = propagation.predict_network(model, path, TIMES).layers
    assert (first.name, float(first.smp[0])) == ("1:relu", 0.0)
    coarse, fine = (attribute(model, path, torch.linspace(0, TAU, count, dtype=F64)) for count in (201, 801))
    assert [layer.name for layer in fine.layers] == [first.name, second.name]
    assert fine.layers[0].smp < 0.4 * coarse.layers[0].smp
    # One network's second layer: its scatter is a tenth or so.
    assert float(second.smp[0]) == pytest.approx(float(fine.layers[1].smp[0]), rel=0.35)


def test_an_activation_that_switches_by_a_mask_is_refused():
    activations = pytest.importorskip("transformers.activations")
    with pytest.raises(ValueError, match=r"softplus of several computed tensors|has no rule"):
        propagation.predict_network(network(activations.ACT2FN["xielu"], 0), wander(1), TIMES)
