"""SMP layer by layer against exact figures, a count that knows no units, and itself."""

import copy
import math

import pytest
import torch
from brute import brute_smp
from cases import ALL, MODELS, TOGETHER
from torch import nn
from torch.nn.utils import prune

from smpcore import attribute, models, paths
from smpcore.models import FACE_INPUT, REFERENCE_SMP
from smpcore.propagation import predict_network
from smpcore.smoothing import expected_smp

pytestmark = pytest.mark.numeric

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


def test_calls_are_grouped_by_call_site_on_request():
    pytest.importorskip("matplotlib").use("Agg")
    weight = torch.tensor([[0.9, -0.7], [0.6, 0.8]], dtype=torch.float64)

    def repeated(x):
        for _ in range(3):
            x = torch.tanh(2 * torch.nn.functional.softshrink(x @ weight, 0.1))
        return torch.relu(x)

    found = attribute(repeated, paths.line(torch.tensor([-1.0, 0.8]), torch.tensor([1.0, -0.3])), TIMES)
    names = [f"model:{name}" for name in ("softshrink", "softshrink#2", "softshrink#3", "relu")]
    assert [layer.name for layer in found.layers] == names
    alone, grouped = found.to_frame(), found.to_frame(group=True)
    assert list(grouped.columns) == list(alone.columns)
    assert grouped.layer.tolist() == ["model:softshrink"] * 2 + ["model:relu"] * 2
    for output in (0, 1):
        part, whole = alone[alone.output == output], grouped[grouped.output == output]
        assert whole.smp.tolist() == pytest.approx([part.smp[:-1].sum(), part.smp.iloc[-1]])
        assert whole.switches.tolist() == [part.switches[:-1].sum(), part.switches.iloc[-1]]
        assert whole.units.tolist() == [6, 2]
    assert found.to_frame(group=lambda name: name.partition("#")[2]).layer.unique().tolist() == ["", "2", "3"]
    axes = found.plot(group=True)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["model:softshrink", "model:relu"]


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and there is none")
@pytest.mark.parametrize("name", ["convolutions and poolings", "overlapping pools, 3/1", "transformer"])
def test_the_same_on_a_gpu(name):
    model, start, end = named(name).build(0)
    path = paths.line(start, end)
    here = attribute(model, path, TIMES)
    there = attribute(model.cuda(), paths.line(start.cuda(), end.cuda()), TIMES)
    torch.testing.assert_close(there.total.cpu(), here.total, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_gradients_that_are_switched_off_by_the_caller_change_nothing(without):
    model, times = models.mlp(3, width=8, depth=2), torch.linspace(0, 1, 33)
    start, end = torch.tensor([[1.0, -0.5, 0.3], [-0.8, 0.6, 0.4]]).double()
    measures = [lambda: attribute(model, paths.line(start, end), times).total,
                lambda: predict_network(model, paths.line(start, end), times).total,
                lambda: expected_smp(model.double(), start[None], end[None])]
    free = [measure().detach() for measure in measures]
    with without():
        held = [measure().detach().clone() for measure in measures]
    for one, other in zip(free, held, strict=True):
        assert bool(one.any())
        torch.testing.assert_close(one, other)
