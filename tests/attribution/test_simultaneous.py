"""Units that switch at one moment kink, or jump, once: shares of several branches, ties, and cascades of steps."""

import pytest
import torch
from custom import Backward
from fuzz import refined_kinks
from torch import nn
from torch.nn import functional as F

from smpcore import attribute, paths, trace_line


def line(*ends):
    return paths.line(*(torch.tensor(end, dtype=torch.float64) for end in ends))


def times(samples):
    return torch.linspace(0, 1, samples, dtype=torch.float64)


BRANCHES = line([-1.0], [1.3])
#: On x from -1 to 1.3: what switches at 0 stands on branches of x and of -x, or comes from a unit behind.
TOGETHER = {
    "the magnitude of CReLU": (lambda x: (F.relu(x) - F.relu(-x)).abs(), 4.6),
    "PReLU by two ReLUs, then ReLU": (lambda x: F.relu(F.relu(x) - 0.25 * F.relu(-x)), 2.3),
    "the same, then leaky ReLU": (lambda x: F.leaky_relu(F.relu(x) - 0.9 * F.relu(-x), 0.5), 1.265),
    "soft shrinkage by 0": (lambda x: F.relu(F.softshrink(x, 0.0)), 2.3),
    "hard shrinkage by 0": (lambda x: F.relu(F.hardshrink(x, 0.0)), 2.3),
    "clamp and its rest": (lambda x: F.relu(x.clamp(-0.5, 0.5) + F.softshrink(x, 0.5) - 0.5), 2.3),
}


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("samples", [201, 202, 33])
def test_branches_that_switch_on_one_difference(name, samples):
    model, truth = TOGETHER[name]
    found = attribute(model, BRANCHES, times(samples))
    assert float(found.total) == pytest.approx(truth, rel=1e-9)
    assert float(found.unexplained) == pytest.approx(0, abs=1e-6)


#: At rest on a threshold of the next unit, where torch's derivative is that of either side, of neither, or of both.
AT_REST = {
    "clamp behind ReLU": lambda x: F.relu(x).clamp(0, 0.4),
    "clamp twice": lambda x: x.clamp(-0.3, 0.4).clamp(-0.3, 0.4),
    "hardtanh twice": lambda x: F.hardtanh(F.hardtanh(x, -0.3, 0.4), -0.3, 0.4),
    "hardsigmoid twice": lambda x: F.hardsigmoid(F.hardsigmoid(9 * x) * 6 - 3),
    "abs behind a negative ReLU": lambda x: (-F.relu(x)).abs(),
    "abs behind soft shrinkage": lambda x: F.softshrink(x, 0.2).abs(),
    "soft shrinkage twice": lambda x: F.softshrink(F.softshrink(x, 0.2), 0.0),
    "a maximum of two at rest": lambda x: torch.maximum(F.relu(x), -F.relu(x)),
    "a minimum of branches": lambda x: torch.minimum(F.relu(x), F.relu(x) * 0.5 + F.relu(-x)),
    "PReLU behind ReLU": lambda x: F.prelu(F.relu(x), torch.full((1,), 0.25, dtype=x.dtype)),
    "threshold behind ReLU": lambda x: F.threshold(F.relu(x), 0.0, 0.0),
}


@pytest.mark.parametrize("name", AT_REST)
@pytest.mark.parametrize("ends", [([-1.0, -0.5], [1.3, 0.8]), ([-1.0, -0.5], [1.0, 0.5])])
def test_units_at_rest_on_a_threshold(name, ends):
    truth = trace_line(AT_REST[name], *(torch.tensor(end, dtype=torch.float64) for end in ends))
    assert truth.certified
    # Odd numbers put a sample on the kink of the second line.
    for samples in (9, 40, 201):
        found = attribute(AT_REST[name], line(*ends), times(samples))
        torch.testing.assert_close(found.total, truth.smp, rtol=1e-6, atol=1e-9)
        assert float(found.unexplained.max()) < 1e-6


@pytest.mark.parametrize("samples", [65, 1001])
def test_random_branches_against_kinks_that_know_no_units(samples):
    torch.manual_seed(3)
    one, two, three = (nn.Linear(4, 8).double() for _ in range(3))
    read = nn.Linear(8, 2).double()

    def model(x):
        a, b = F.relu(one(x)), F.relu(-one(x))
        gated = torch.minimum((a - b).abs(), F.relu(two(x)) - 0.3 * F.relu(-two(x)))
        return read(F.leaky_relu(gated - a, 0.4) + torch.maximum(three(x), a - b).clamp(-1, 1))

    path = line([-1.0, 2, 0.3, -0.4], [1.2, -1.1, 0.5, 2])
    with torch.no_grad():
        _, jumps = refined_kinks(model, path)
    found = attribute(model, path, times(samples))
    off = (found.total - jumps.abs().sum(0)).abs()
    assert bool((off <= torch.maximum(3 * found.unexplained, 1e-6 * found.total)).all())
    assert samples < 1001 or bool((off < 0.03 * found.total).all())


# Jumps in value ------------------------------------------------------------------------------------------


def step(x):
    return torch.heaviside(x, torch.zeros((), dtype=x.dtype))


def _cascade(x):
    return step(step(x) - 0.5) - step(step(x) - 0.6) + 0.1 * step(x)


def test_a_cascade_of_thresholds_jumps_once():
    found = attribute(_cascade, BRANCHES, times(201))
    assert float(found.value_jumps) == pytest.approx(0.1, rel=1e-9)
    assert float(found.total) == 0


class Stack(nn.Module):
    def __init__(self, depth, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleList(nn.Linear(24 if n else 6, 24) for n in range(depth))
        self.read = nn.Linear(24, 2)

    def forward(self, x):
        for layer in self.layers:
            x = step(layer(x))
        return self.read(x)


class Spiking(nn.Module):
    """Leaky integration, a spike at 1 that takes 1 away."""

    def __init__(self, steps, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.steps, self.drive, self.read = steps, nn.Linear(6, 12), nn.Linear(12, 2)

    def forward(self, x):
        drive, charge, out = self.drive(x), 0.0, 0.0
        for _ in range(self.steps):
            charge = 0.9 * charge + drive
            spike = step(charge - 1)
            charge, out = charge - spike, out + self.read(spike)
        return out


def brute_jumps(model, path):
    """On 100,001 samples, of an output that is constant between its jumps."""
    with torch.no_grad():
        change = torch.cat([model(part) for part in path(times(100_001)).split(20_000)]).diff(dim=0).abs()
    return torch.where(change > 1e-9, change, 0.0).sum(0)


#: A spike delayed by one step moves others by less than a sample: at 40 steps some jumps share an interval.
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("make", "samples", "within"), [
    (lambda seed: Stack(2, seed), 401, 1e-6), (lambda seed: Stack(3, seed), 401, 1e-6),
    (lambda seed: Spiking(10, seed), 401, 1e-6), (lambda seed: Spiking(40, seed), 401, 0.1),
    (lambda seed: Spiking(40, seed), 3201, 0.01)], ids=["two", "three", "spikes, 10", "spikes, 40", "finer"])
def test_thresholds_in_a_row_count_each_jump_once(make, samples, within, seed):
    generator = torch.Generator().manual_seed(5)
    path = paths.line(*torch.randn(2, 6, generator=generator, dtype=torch.float64))
    model = make(seed).double()
    found = attribute(model, path, times(samples))
    torch.testing.assert_close(found.value_jumps, brute_jumps(model, path), rtol=within, atol=0)
    assert found.total.tolist() == [0, 0]


# Products with a step ------------------------------------------------------------------------------------


class Gated(nn.Module):
    def __init__(self, unit, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.body, self.unit, self.read = nn.Linear(6, 24), unit, nn.Linear(24, 2)

    def forward(self, x):
        return self.read(self.unit(self.body(x)))


def test_a_number_times_its_step_is_a_relu():
    path = line([-2.0, 1, 0.4, 1, -1, 0.3], [1.0, -1, 2.4, -0.5, 0.1, 2])
    for of, same in ((lambda x: x * step(x), F.relu), (lambda x: x * x.sign(), torch.abs)):
        found, truth = (attribute(Gated(unit, 0), path, times(1001)) for unit in (of, same))
        assert found.value_jumps.tolist() == [0, 0]
        torch.testing.assert_close(found.total, truth.total, rtol=1e-6, atol=0)


def test_the_complex_relu_of_two_gates():
    """Re z and Im z are passed on where both are positive: one has a kink where the other jumps."""
    def model(x):
        re, im = x[:, :1], x[:, 1:]
        open_ = step(re) * step(im)
        return torch.cat([re * open_, im * open_], 1)

    # Re crosses 0 at t = 1/3, Im is 1 there; Im crosses 0 at t = 2/3, Re is 1 there.
    found = attribute(model, line([-1.0, 2.0], [2.0, -1.0]), times(202))
    assert found.value_jumps.tolist() == pytest.approx([1, 1], rel=1e-2)
    assert found.total.tolist() == pytest.approx([3, 3], rel=1e-6)


def test_a_gate_on_another_branch_jumps():
    found = attribute(lambda x: x[:, 1:] * step(x[:, :1]), line([-1.0, 2.0], [2.0, -1.0]), times(202))
    assert float(found.value_jumps) == pytest.approx(1, rel=1e-2)


# Spikes of libraries -------------------------------------------------------------------------------------


class Surrogate(Backward):
    """A step with a derivative of its own, in float32 whatever it is given."""

    @staticmethod
    def forward(ctx, x):
        return (x > 0).float()


def test_a_surrogate_spike_is_a_step():
    path = line([-1.0], [1.3])
    for library, plain in ((lambda x: 3 * Surrogate.apply(x - 0.2), lambda x: 3 * step(x - 0.2)),
                           (lambda x: Surrogate.apply(Surrogate.apply(x) - 0.5) + x,
                            lambda x: step(step(x) - 0.5) + x)):
        found, truth = attribute(library, path, times(101)), attribute(plain, path, times(101))
        assert found.values.dtype == torch.float64
        torch.testing.assert_close(found.value_jumps, truth.value_jumps)
        torch.testing.assert_close(found.slopes, truth.slopes)
        assert [layer.kind for layer in found.layers] == ["spike"] * len(truth.layers)
    # Outside a measurement the function is torch's own again.
    assert Surrogate.apply(torch.ones(1, dtype=torch.float64)).dtype == torch.float32


def _snntorch(steps=10):
    snn = pytest.importorskip("snntorch", reason="snntorch is an extra of the tests, and is not installed")
    from snntorch import surrogate

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.drive, self.read = nn.Linear(6, 12), nn.Linear(12, 2)
            self.leaky = snn.Leaky(beta=0.9, spike_grad=surrogate.fast_sigmoid(), reset_mechanism="none")

        def forward(self, x):
            charge, out = self.leaky.reset_mem(), 0.0
            for _ in range(steps):
                spike, charge = self.leaky(self.drive(x), charge)
                out = out + self.read(spike)
            return out

    def by_hand(network):
        def model(x):
            drive, charge, out = network.drive(x), 0.0, 0.0
            for _ in range(steps):
                charge = network.leaky.beta * charge + drive
                out = out + network.read(step(charge - 1))
            return out
        return model

    return Network(), by_hand


def test_spikes_of_snntorch_before_and_after_training():
    network, by_hand = _snntorch()
    path = paths.line(*torch.randn(2, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    truth = brute_jumps(by_hand(_snntorch()[0].double()), path)
    torch.testing.assert_close(attribute(network, path, times(401)).value_jumps, truth, rtol=1e-5, atol=0)
    network(torch.ones(3, 6)).sum().backward()
    torch.testing.assert_close(attribute(network, path, times(401)).value_jumps, truth, rtol=1e-5, atol=0)


def test_spikes_of_spikingjelly():
    surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate",
                                    reason="spikingjelly is an extra of the tests, and is not installed")
    for unit in (surrogate.ATan(), surrogate.Sigmoid()):
        found = attribute(lambda x, unit=unit: x + 3 * unit(x - 0.2), BRANCHES, times(101))
        assert float(found.value_jumps) == pytest.approx(3, rel=1e-12)
        assert [layer.kind for layer in found.layers] == ["spike"]
