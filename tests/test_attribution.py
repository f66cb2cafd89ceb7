"""SMP layer by layer against exact figures, a count that knows no units, and itself."""

import copy
import math

import pytest
import torch
from brute import brute_smp
from cases import ALL, MODELS, TOGETHER
from torch import nn
from torch.autograd import forward_ad
from torch.nn.utils import prune

from smpcore import attribute, models, paths, trace_line
from smpcore._events import _places
from smpcore._layerwise import Measurement
from smpcore.benchmarks import peak_bytes
from smpcore.models import FACE_INPUT, REFERENCE_SMP

LINE = paths.line(torch.ones(6, dtype=torch.float64), -torch.arange(6, dtype=torch.float64))
TIMES = torch.linspace(0, 1, 101, dtype=torch.float64)


def named(name):
    return next(case for case in ALL if case.name == name)


@pytest.fixture(scope="module")
def reference():
    model, path = models.reference_cnn(), paths.line(*models.reference_line())
    return attribute(model, path, torch.linspace(0, 1, 401, dtype=torch.float64))


def test_the_reference_network(reference):
    assert float(reference.total) == pytest.approx(REFERENCE_SMP, rel=2e-3)
    assert [layer.name for layer in reference.layers] == [
        "1:relu", "2:max_pool2d", "4:relu", "5:max_pool2d", "8:relu"]
    assert [layer.units for layer in reference.layers] == [6272, 1568, 3136, 784, 32]
    # The exact shares, to the two figures to which they are known.
    shares = [float(layer.smp) for layer in reference.layers]
    assert shares == pytest.approx([0.85, 3.48, 1.00, 2.92, 0.14], abs=0.02)


def test_layers_add_up(reference):
    assert float(sum(layer.smp for layer in reference.layers)) == pytest.approx(float(reference.total), rel=1e-12)


@pytest.mark.parametrize("case", [*MODELS, *TOGETHER], ids=lambda case: case.name)
def test_a_model_agrees_with_the_count(case):
    # 2% on average over lines, 8% on each with over a hundred kinks; either sign, every output.
    errors = []
    # On a third line the count itself does not end where the transformer curves most: it halves every interval.
    for seed in range(3 if case.straight else 2):
        model, start, end = case.build(seed)
        path = paths.line(start, end)
        truth, kinks = brute_smp(model, path, 1.0, straight=case.straight, samples=501 if case.straight else 8001)
        found = attribute(model, path, torch.linspace(0, 1, 401, dtype=torch.float64)).total
        some = truth > 0
        assert found[~some].tolist() == [0.0] * int((~some).sum())
        off = (found / truth - 1)[some].abs().tolist()
        errors += off
        if kinks > 100:
            assert max(off, default=0.0) <= 0.08
    assert sum(errors) / len(errors) <= 0.02


@pytest.mark.parametrize("name", ["convolutions and poolings", "two heads", "overlapping pools, 3/1", "transformer"])
@pytest.mark.parametrize("chunk", [2, 7, 64])
def test_chunks_change_nothing(name, chunk):
    model, start, end = named(name).build(3)
    path = paths.line(start, end)
    whole = attribute(model, path, TIMES[::2], chunk=101)
    parts = attribute(model, path, TIMES[::2], chunk=chunk)
    torch.testing.assert_close(parts.total, whole.total, rtol=1e-9, atol=1e-12)
    assert [layer.switches for layer in parts.layers] == [layer.switches for layer in whole.layers]
    torch.testing.assert_close(parts.values, whole.values, rtol=1e-9, atol=1e-12)


def test_the_choice_of_outputs_changes_nothing():
    model, start, end = named("two heads").build(4)
    path = paths.line(start, end)
    whole = attribute(model, path, TIMES).total
    for outputs in ([2, 0], lambda z: z[:, [2, 0]]):
        torch.testing.assert_close(attribute(model, path, TIMES, outputs=outputs).total, whole[[2, 0]],
                                   rtol=1e-9, atol=0)


@pytest.mark.parametrize("layer", [nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus, nn.ELU, nn.Identity])
def test_a_smooth_network_has_none(layer):
    torch.manual_seed(0)
    found = attribute(nn.Sequential(nn.Linear(6, 9), layer(), nn.LayerNorm(9), nn.Linear(9, 2)), LINE, TIMES)
    assert found.total.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["overlapping pools, 3/1", "CReLU"])
def test_what_switches_together_is_shared_out(name):
    model, start, end = named(name).build(0)
    found = attribute(model, paths.line(start, end), TIMES)
    assert all(bool((layer.smp > 0).all()) for layer in found.layers)
    torch.testing.assert_close(sum(layer.smp for layer in found.layers), found.total)


def test_a_kink_at_a_sample_counts_once():
    path = paths.line(-torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    for samples in (10, 11):
        times = torch.linspace(0, 1, samples, dtype=torch.float64)
        for chunk in (2, 6, 11):
            assert float(attribute(torch.relu, path, times, chunk=chunk).total) == pytest.approx(2, rel=1e-12)
            assert float(attribute(lambda x: torch.relu(-x), path, times, chunk=chunk).total) == pytest.approx(2)
    ends = paths.line(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    assert float(attribute(torch.relu, ends, TIMES).total) == 0.0


def test_gradients_turned_off_inside_the_model():
    def plain(x):
        return torch.relu(x)

    def quiet(x):
        with torch.no_grad():
            return torch.relu(x.detach())

    def inferred(x):
        with torch.inference_mode():
            return torch.relu(x.data)

    expected = attribute(plain, LINE, TIMES).total
    for model in (quiet, inferred):
        torch.testing.assert_close(attribute(model, LINE, TIMES).total, expected)


def _writing(x):
    x = torch.nn.functional.softshrink(x, 0.1) * 1
    x[:, 1:].clamp_(min=0)
    return x.sum(1, keepdim=True)


def _not_writing(x):
    x = torch.nn.functional.softshrink(x, 0.1)
    return x[:, :1] + x[:, 1:].clamp(min=0).sum(1, keepdim=True)


def test_a_view_written_into_reads_as_one_that_is_not():
    assert float(attribute(_not_writing, LINE, TIMES).total) > 0
    torch.testing.assert_close(attribute(_writing, LINE, TIMES).total, attribute(_not_writing, LINE, TIMES).total)


def test_the_callers_model_is_not_touched():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 1))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = attribute(model, LINE, TIMES)
    assert found.values.dtype == torch.float64
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model[1]._forward_hooks


def test_float32_agrees():
    model, start, end = named("mlp").build(0)
    path = paths.line(start, end)
    fine = attribute(model, path, TIMES)
    coarse = attribute(model.float(), path, TIMES, dtype=torch.float32)
    torch.testing.assert_close(coarse.total.double(), fine.total, rtol=1e-3, atol=1e-4)


def test_a_module_used_twice_is_two_layers():
    model, start, end = named("a module used twice").build(0)
    found = attribute(model, paths.line(start, end), TIMES)
    assert [layer.name for layer in found.layers] == ["1:relu", "1:relu#2"]


def test_frame_and_bars():
    pytest.importorskip("matplotlib").use("Agg")
    model, start, end = named("two heads").build(0)
    found = attribute(model, paths.line(start, end), TIMES)
    frame = found.to_frame()
    assert list(frame.columns) == ["layer", "kind", "units", "switches", "output", "smp"]
    assert len(frame) == len(found.layers) * 3
    assert frame.groupby("output").smp.sum().tolist() == pytest.approx(found.total.tolist())
    axes = found.plot(output=1)
    assert [text.get_text() for text in axes.get_yticklabels()] == [layer.name for layer in found.layers]


def test_the_face_network_on_the_photograph():
    pytest.importorskip("joblib")
    path = paths.picture("grace_hopper.jpg", [165, 125, 375, 335], pan=(16, 10), **FACE_INPUT)
    # A quarter of the path at the spacing of 401 samples.
    times = torch.linspace(0, math.pi / 16, 13, dtype=torch.float64)
    found = attribute(models.face_network(), path, times, outputs=lambda face: face.landmarks[:, :1])
    kinds = [layer.kind for layer in found.layers]
    assert kinds == ["prelu", "max pool"] * 3 + ["prelu"] * 2
    pools = sum(float(layer.smp) for layer in found.layers if layer.kind == "max pool")
    # Whole path: 83% of it.
    assert 0.7 < pools / float(found.total) < 0.95


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return torch.relu(x) * self.calls


class Late(Counter):
    """Changes only after the first calls."""

    def forward(self, x):
        self.calls += 1
        return torch.relu(x) * max(self.calls, 3)


def _linear(outputs=1):
    return nn.Linear(6, outputs)


class Steep(torch.autograd.Function):
    """A derivative forward, and none backward."""

    @staticmethod
    def forward(ctx, x):
        return 1 * x

    @staticmethod
    def jvp(ctx, tangent):
        return 1 * tangent

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 0


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def _hooked():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU())
    model[1].register_full_backward_hook(lambda *_: None)
    return model


def _steep(x):
    return Steep.apply(torch.relu(x))


def _nan_later(x):
    return torch.sqrt(x[:, :1] - 0.5)


BAD = {
    "not a tensor of times": (_linear, LINE, [0, 1], {}, TypeError, "times is a torch tensor"),
    "one time": (_linear, LINE, TIMES[:1], {}, ValueError, "at least two times"),
    "not finite": (_linear, LINE, torch.tensor([0, math.nan, 1]), {}, ValueError, r"times\[1\] is not a finite"),
    "falling": (_linear, LINE, torch.tensor([0.0, 0.5, 0.5]), {}, ValueError, r"must increase.*times\[2\]"),
    "chunk": (_linear, LINE, TIMES, {"chunk": 1}, ValueError, "chunk = 1.*at least 2"),
    "dtype": (_linear, LINE, TIMES, {"dtype": torch.long}, TypeError, "floating torch type"),
    "not a model": (lambda: 3, LINE, TIMES, {}, TypeError, "torch.nn.Module or a function"),
    "batch norm": (lambda: nn.Sequential(_linear(), nn.BatchNorm1d(1)), LINE, TIMES, {}, ValueError,
                   "1 .BatchNorm1d. is in training mode.*eval"),
    "dropout": (lambda: nn.Dropout(), LINE, TIMES, {}, ValueError, "training mode.*eval"),
    "functional dropout": (lambda: lambda x: nn.functional.dropout(x), LINE, TIMES, {}, ValueError, "random.*eval"),
    "functional batch norm": (lambda: lambda x: nn.functional.batch_norm(x, None, None, training=True), LINE, TIMES,
                              {}, ValueError, "by the batch.*eval"),
    "path without tangent": (_linear, lambda t: torch.ones(len(t), 6), TIMES, {}, ValueError, "carries no tangent"),
    "path of the wrong length": (_linear, lambda t: LINE(t)[:-1], TIMES, {}, ValueError, "one input for each time"),
    "path of numpy": (_linear, lambda t: [1.0], TIMES, {}, TypeError, "must return a torch tensor"),
    "many outputs": (lambda: _linear(65), LINE, TIMES, {}, ValueError, "65 outputs.*choose at most 64"),
    "an index too far": (_linear, LINE, TIMES, {"outputs": [1]}, ValueError, "indices go from 0 to 0"),
    "no outputs": (_linear, LINE, TIMES, {"outputs": []}, ValueError, "names 0 outputs"),
    "a dictionary": (lambda: lambda x: {"y": x}, LINE, TIMES, {}, TypeError, "returns a dict.*outputs=lambda"),
    "a choice of no tensor": (_linear, LINE, TIMES, {"outputs": lambda z: 1}, TypeError, "returned a int"),
    "whole numbers": (lambda: lambda x: torch.ones(len(x), 1).long(), LINE, TIMES, {}, TypeError, "floating tensor"),
    "one row for all": (lambda: lambda x: x.sum(0), LINE, TIMES, {}, ValueError, "one row for each"),
    "a counter": (Counter, LINE, TIMES, {}, ValueError, "changes between calls"),
    "a counter later": (Late, LINE, TIMES, {"chunk": 20}, ValueError, "changes between calls"),
    "random numbers": (lambda: lambda x: x + torch.rand_like(x), LINE, TIMES, {}, ValueError, "changes between calls"),
    "another size of batch": (lambda: lambda x: torch.relu(x) * len(x), LINE, TIMES, {}, ValueError,
                              "place in the batch or on its size"),
    "NaN in a path": (_linear, lambda t: torch.log(t - 0.2)[:, None].expand(-1, 6), TIMES, {}, ValueError,
                      "the path's input is NaN at t = 0.15"),
    "NaN before a layer": (lambda: lambda x: torch.relu(torch.log(x)), LINE, TIMES, {}, ValueError,
                           "input of model:relu is NaN at t = 0.15 or 0.38"),
    "inputs of another shape": (lambda: nn.Linear(5, 1), LINE, TIMES, {}, ValueError,
                                r"does not run on inputs of shape \(3, 6\).*the path gives"),
    "tensors of a type of its own": (lambda: lambda x: x @ torch.zeros(6, 2), LINE, TIMES, {}, ValueError,
                                     "does not run in torch.float64.*new_zeros.*dtype=torch.float32"),
    "samples mixed": (lambda: lambda x: x - x.max(), LINE, TIMES, {}, ValueError, "mixes the samples"),
    "NaN": (lambda: _nan_later, LINE, TIMES, {}, ValueError, "not finite at sample"),
    "infinitely steep": (lambda: lambda x: torch.sqrt(torch.relu(x)), LINE, TIMES, {}, ValueError,
                         "slope is not finite at sample .*square root"),
    "an infinite gain": (lambda: _steep, LINE, TIMES, {}, ValueError,
                         "gain from model:relu to the output is not finite"),
    "no forward AD": (lambda: lambda x: nn.functional.grid_sample(
        x.reshape(-1, 1, 2, 3), torch.zeros(len(x), 2, 3, 2).to(x), align_corners=False).flatten(1), LINE, TIMES, {},
        ValueError, "grid_sampl.* no forward-mode derivative.*weighted sum"),
    "TorchScript": (lambda: torch.jit.trace(nn.ReLU(), torch.ones(1, 6)), LINE, TIMES, {}, ValueError, "TorchScript"),
    "runs on some inputs": (lambda: _sometimes, LINE, TIMES, {"chunk": 7}, ValueError, "ran on some inputs"),
    "no numbers": (lambda: lambda x: x[:, :0], LINE, TIMES, {}, ValueError, "holds no numbers"),
    "half an output": (_linear, LINE, TIMES, {"outputs": 1.5}, TypeError, "outputs = 1.5: give whole numbers"),
    "on the meta device": (lambda: nn.Linear(6, 1, device="meta"), LINE, TIMES, {}, ValueError,
                           "weight is on the meta device"),
    "quantised": (lambda: nn.Sequential(torch.ao.nn.quantized.ReLU6()), LINE, TIMES, {}, ValueError,
                  "module 0 is quantised"),
    "a custom function without a derivative": (lambda: lambda x: Backward.apply(torch.relu(x)), LINE, TIMES, {},
                                               ValueError, "model runs a custom autograd function without.*jvp"),
    "a backward hook": (lambda: _hooked(), LINE, TIMES, {}, ValueError, "1 runs a custom.*remove the hooks"),
    "no copy": (lambda: _uncopied(), LINE, TIMES, {}, ValueError, "cannot be copied"),
}


def _sometimes(x):
    return torch.relu(x) if len(x) in (3, 5) else torch.abs(x)


def _uncopied():
    model = _linear()
    model.kept = (x for x in ())
    return model


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*custom autograd function")
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_a_sentence(name):
    make, path, times, options, kind, match = BAD[name]
    with pytest.raises(kind, match=match):
        attribute(make(), path, times, **options)


def test_what_is_read_beside_a_kink_halves_with_the_spacing():
    """Slopes of relu(x)**2 do not jump: what is left of its gain beside 0 is the error that the notes state."""
    line = paths.line(torch.tensor([-1.03]), torch.tensor([0.97]))
    coarse, fine = (float(attribute(lambda x: torch.relu(x) ** 2, line,
                                    torch.linspace(0, 1, samples, dtype=torch.float64)).total)
                    for samples in (51, 401))
    assert 0 < fine < 4 * 2**2 / 400
    assert fine < coarse / 2


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 4, dtype=torch.complex64))

    def forward(self, x):
        return torch.relu((x.to(self.weight.dtype) @ self.weight).imag)


def test_complex_parameters_keep_their_imaginary_part():
    found = attribute(Complex(), LINE, TIMES)
    weight = Complex().weight.detach().imag.double()
    torch.testing.assert_close(found.total, attribute(lambda x: torch.relu(x @ weight), LINE, TIMES).total)
    assert float(found.total.sum()) > 0


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_that_are_computed_from_others():
    torch.manual_seed(0)
    layer, pruned = nn.Linear(6, 8), nn.Linear(8, 1)
    weight = layer.weight.detach().clone()
    plain = nn.Sequential(copy.deepcopy(layer), nn.ReLU(), copy.deepcopy(pruned))
    derived = nn.Sequential(nn.utils.weight_norm(layer), nn.ReLU(),
                            prune.l1_unstructured(pruned, "weight", amount=1))
    derived[2].weight.sum().backward()
    derived(torch.ones(1, 6))
    torch.testing.assert_close(derived[0].weight.detach(), weight)
    with torch.no_grad():
        plain[2].weight.copy_(derived[2].weight)
    torch.testing.assert_close(attribute(derived, LINE, TIMES).total, attribute(plain, LINE, TIMES).total)


def test_a_number_read_out_of_a_tensor_is_warned_of():
    def model(x):
        return x if bool((x > -99).all()) else 2 * x

    with pytest.warns(UserWarning, match="reads a number out of a tensor"):
        attribute(model, LINE, TIMES)


@pytest.mark.parametrize("name", ["convolutions and poolings", "mlp"])
def test_memory_does_not_grow_with_the_samples(name):
    model, start, end = named(name).build(0)
    path = paths.line(start, end)
    peaks = []
    for samples in (129, 1025):
        times = torch.linspace(0, 1, samples, dtype=torch.float64)
        peaks.append(peak_bytes(lambda times=times: attribute(model, path, times, chunk=33)))
    # Values and slopes are the results, held once by chunks and once joined; the times' differences are one more.
    outputs = attribute(model, path, times[:9]).total.numel()
    results = 8 * (samples - 129) * (1 + 4 * outputs)
    assert peaks[0] > 10_000
    assert peaks[1] < peaks[0] * 1.1 + results


@pytest.mark.parametrize("path", [LINE, paths.line(LINE.start, LINE.end, length=0.7), paths.circle(6, seed=3),
                                  paths.circle(6, seed=3, radius=0.1)])
def test_a_path_that_knows_its_slope_measures_as_one_that_does_not(path):
    times = TIMES * 0.7
    dual = forward_ad.make_dual
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(path(dual(times, torch.ones_like(times)))).tangent
        torch.testing.assert_close(path.slope(times), slope, rtol=1e-13, atol=1e-15)
    model, *_ = named("mlp").build(0)
    known, asked = attribute(model, path, times), attribute(model, lambda t: path(t), times)
    torch.testing.assert_close(known.slopes, asked.slopes, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(known.total, asked.total, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [0, 7, 4095, 4096, 4101, 100_003])
def test_switches_are_found_eight_at_a_time_as_one_by_one(size):
    for part in (0.0, 0.01, 1.0):
        found = torch.rand(size, generator=torch.Generator().manual_seed(size)) < part
        assert torch.equal(_places(found), found.nonzero()[:, 0])


def test_a_chunk_holds_as_many_samples_as_its_layers_are_small():
    sizes = []
    for width in (8, 1000, 40_000, 10_000_000):
        run = Measurement(torch.relu, LINE, TIMES, None, torch.float64)
        run.numbers = width
        sizes.append(run.chunk())
    assert sizes[0] > sizes[1] > sizes[2] == 65
    assert sizes[3] == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none")
@pytest.mark.parametrize("name", ["convolutions and poolings", "overlapping pools, 3/1", "transformer"])
def test_the_same_on_a_gpu(name):
    model, start, end = named(name).build(0)
    path = paths.line(start, end)
    here = attribute(model, path, TIMES)
    there = attribute(model.cuda(), paths.line(start.cuda(), end.cuda()), TIMES)
    torch.testing.assert_close(there.total.cpu(), here.total, rtol=1e-8, atol=1e-12)


class Idle(nn.Module):
    """Six units of which the first two never move, on a path that comes back half-way."""

    def forward(self, x):
        still = torch.relu(0 * x[:, :1] + torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 2.0], dtype=x.dtype))
        return torch.relu(x[:, :1]) + still.sum(1, keepdim=True)


@pytest.mark.parametrize("copies", [2, 3, 5])
def test_what_is_no_sample_is_not_taken_for_one(copies):
    def stacked(x):
        return torch.relu(torch.stack([x] * (copies - 1) + [x - 0.3])).mean(0)

    expected = trace_line(stacked, LINE.start, LINE.end)
    assert expected.certified
    torch.testing.assert_close(attribute(stacked, LINE, TIMES).total, expected.smp)


def test_a_layer_at_rest_and_a_path_that_comes_back_half_way():
    times = torch.linspace(0, 2 * math.pi, 1001, dtype=torch.float64)
    found = attribute(Idle(), lambda t: (torch.sin(2 * t) + 0.25)[:, None], times, chunk=17)
    assert [layer.units for layer in found.layers] == [6, 1]
    assert float(found.total) == pytest.approx(4 * 2 * (1 - 0.25**2) ** 0.5, rel=1e-2)
    copies = attribute(lambda x: torch.relu(x.expand(3, *x.shape).contiguous()).mean(0), LINE, TIMES, chunk=17)
    torch.testing.assert_close(copies.total, attribute(torch.relu, LINE, TIMES).total)
