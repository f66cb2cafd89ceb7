"""A network made smooth: on every model of the table of cases, and what is refused."""

import copy
import io
import math
import sys

import cases
import pytest
import torch
from torch import nn

from smpcore import attribute, models, paths, trace_line
from smpcore.smoothing import relax

ROOM = sys.modules["smpcore.smoothing.relax"]
TIMES = torch.linspace(0, 1, 41, dtype=torch.float64)


def inputs(shape, count=48, seed=1):
    return 2 * torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("case", cases.ALL, ids=lambda case: case.name)
def test_every_model_becomes_smooth(case):
    model, start, end = case.build()
    state = copy.deepcopy(model.state_dict())
    names = [layer.name for layer in attribute(model, paths.line(start, end), TIMES).layers]
    calibration = inputs(case.shape)
    relaxed = relax(model, calibration)
    assert sorted([*relaxed.replaced, *relaxed.left]) == sorted(names)
    assert (not relaxed.left) == (not case.jumps)
    after = attribute(relaxed.model, paths.line(start, end), TIMES)
    assert float(after.total.abs().sum()) == 0
    trace = trace_line(relaxed.model, start, end)
    assert float(trace.smp.sum()) == 0
    assert not trace.certified
    assert case.jumps or all(reason.endswith("is not straight") for _, _, reason in trace.gaps)
    # The caller's model is as it was; what is new stands beside what was there.
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
    touched = tuple(name.split(":")[0] for name in relaxed.replaced)
    found = relaxed.model.state_dict()
    assert state.keys() - found.keys() <= {key for key in state if key.startswith(touched)}
    kept = [key for key in state.keys() & found.keys() if key.rpartition(".")[0] not in relaxed.refitted]
    torch.testing.assert_close([found[key] for key in kept], [state[key] for key in kept], rtol=0, atol=0)
    with torch.no_grad():
        before, now = model(calibration), relaxed.model(calibration)
    assert now.shape == before.shape
    assert now.dtype == before.dtype
    torch.testing.assert_close((now - before).square().mean(0).sqrt(), relaxed.moved)


@pytest.mark.parametrize("case", [case for case in cases.ALL if not case.jumps], ids=lambda case: case.name)
def test_outputs_move_by_less_than_a_bound_that_falls_with_sharpness(case):
    """A unit of k candidates moves by log(k)/b of its spread at most, k ≤ 18 here; a linear layer behind it sums
    movements as it sums the spread, so each layer is allowed log(18)/b of the outputs' standard deviation."""
    model, _, _ = case.build()
    calibration = inputs(case.shape)
    with torch.no_grad():
        std = model(calibration).std(0)
    moved = []
    for b in (4.0, 64.0):
        relaxed = relax(model, calibration, sharpness={"pool": b, "activation": b}, refit=False)
        moved.append(float((relaxed.moved[std > 0] / std[std > 0]).max()))
        assert moved[-1] <= len(relaxed.replaced) * math.log(18) / b
    # A smooth unit is not replaced, and does not move.
    assert moved[1] < moved[0] / 8 if relaxed.replaced else moved == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_mode_and_gradients_stay(dtype):
    model = models.cnn((1, 8, 8), 2, channels=4, depth=2, pooling="max").to(dtype).eval()
    relaxed = relax(model, inputs((1, 8, 8)))
    assert {part.dtype for part in relaxed.model.state_dict().values()} == {dtype}
    assert not relaxed.model.training
    assert all(part.requires_grad for part in relaxed.model.parameters())
    assert relaxed.moved.shape == (2,)
    assert isinstance(relaxed.model, type(model))


def test_single_layers_are_replaced_by_name():
    model = models.cnn((1, 12, 12), 1, channels=4, depth=2, pooling="max").double().eval()
    path = paths.line(*inputs((1, 12, 12), 2))
    found = attribute(model, path, TIMES)
    names = [layer.name for layer in found.layers]
    relaxed = relax(model, inputs((1, 12, 12)), layers=names[1:2], refit=False)
    assert relaxed.replaced == names[1:2]
    assert [layer.name for layer in attribute(relaxed.model, path, TIMES).layers] == names[:1] + names[2:]
    for name, part in model.state_dict().items():
        torch.testing.assert_close(relaxed.model.state_dict()[name], part, rtol=0, atol=0)


class Called(nn.Module):
    """The same call three times over, once of a parameter alone."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.gate = nn.Linear(4, 8), nn.Linear(8, 3), nn.Parameter(torch.tensor(-0.5))

    def forward(self, x):
        x = torch.relu(self.first(x)) * (1 + torch.relu(self.gate))
        return {"answer": self.last(torch.relu(x - 0.3)), "count": 3}


def test_calls_within_code_are_found_by_their_names():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Called().double().eval()
    relaxed = relax(model, inputs((4,)), layers=["model:relu#2"])
    assert relaxed.replaced == ["model:relu#2"]
    path, ends = paths.line(*inputs((4,), 2)), dict(outputs=lambda found: found["answer"])
    assert [layer.name for layer in attribute(relaxed.model, path, TIMES, **ends).layers] == ["model:relu"]
    assert float(attribute(relax(model, inputs((4,))).model, path, TIMES, **ends).total.sum()) == 0


def _saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("again", [copy.deepcopy, _saved])
def test_a_copy_and_a_file_hold_the_smooth_model(again):
    relaxed = relax(Called().double().eval(), inputs((4,))).model
    other, x = again(relaxed), inputs((4,), 5)
    assert type(other) is Called
    torch.testing.assert_close(other(x)["answer"], relaxed(x)["answer"], rtol=0, atol=0)
    path = paths.line(*inputs((4,), 2))
    assert float(attribute(other, path, TIMES, outputs=lambda found: found["answer"]).total.sum()) == 0
    # It holds weights of its own.
    other.last.weight.data.zero_()
    assert bool((other(x)["answer"] != relaxed(x)["answer"]).any())


def test_a_smooth_model_can_be_made_smooth_further():
    """One call after the other, in a model whose calls are answered as it runs."""
    model = Called().double().eval()
    once = relax(model, inputs((4,)), layers=["model:relu"]).model
    twice = relax(once, inputs((4,)))
    assert twice.replaced == ["model:relu"]  # the second call, which is the first that is left
    path = paths.line(*inputs((4,), 2))
    assert float(attribute(twice.model, path, TIMES, outputs=lambda found: found["answer"]).total.sum()) == 0
    torch.testing.assert_close(twice.model(inputs((4,)))["answer"], model(inputs((4,)))["answer"], rtol=0, atol=1)


def test_the_refit_brings_outputs_back():
    """On inputs of three parameters, other ones than it was fitted on."""
    model = models.cnn((1, 12, 12), 2, channels=6, depth=2, pooling="max").double().eval()
    draw = torch.rand(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    calibration, fresh = paths.render_blobs(draw[:, :2], 6 * draw[:, 2], size=12).split(400)
    with torch.no_grad():
        missed = [float((relax(model, calibration, refit=refit).model(fresh) - model(fresh)).square().mean())
                  for refit in (False, True)]
    assert missed[1] < missed[0]


def test_the_face_network_keeps_its_landmarks():
    """Three poolings, calibrated on 96 crops, judged on a path that is none of them: SMP 85% less, no landmark moved by
    1% of the crop."""
    face, box = models.face_network(), [165, 125, 375, 335]
    draw = 2 * torch.rand(96, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    crops = paths.picture("grace_hopper.jpg", box, pan=lambda t: draw[t.long(), :2] * t.new_tensor([18, 12]),
                          zoom=lambda t: 1.05 ** draw[t.long(), 2], **models.FACE_INPUT)(torch.arange(96.0).double())
    path = paths.picture("grace_hopper.jpg", box, pan=(16, 10), **models.FACE_INPUT)
    relaxed = relax(face, crops, layers=[f"pool{number}:max_pool2d" for number in (1, 2, 3)], sharpness={"pool": 2.0})
    where, short = torch.linspace(0, 6.28, 61, dtype=torch.float64), torch.linspace(1, 1.5, 21, dtype=torch.float64)
    with torch.no_grad():
        moved = relaxed.model(path(where).float()).landmarks - face(path(where).float()).landmarks
    before, after = (attribute(network, path, short, outputs=lambda answer: answer.landmarks[:, :1]).total
                     for network in (face, relaxed.model))
    assert float(moved.view(-1, 2, 5).norm(dim=1).max()) < 0.01
    assert float(after) < 0.15 * float(before)


class Tied(nn.Module):
    """A layer that runs twice, two that share a weight, one of a kind of its own, and one before all units."""

    class Own(nn.Linear):
        pass

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.one, self.other = (nn.Linear(4, 4) for _ in range(4))
        self.other.weight, self.own = self.one.weight, self.Own(4, 4)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.own(self.one(x)) + self.other(self.twice(self.twice(x)))


def test_layers_that_cannot_be_fitted_stay():
    relaxed = relax(Tied().double(), inputs((4,)))
    assert not relaxed.refitted
    assert "fitted again: no layer with weights" in relaxed.report()


LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (6,)),
    "linear over places": (lambda: nn.Linear(6, 5, bias=False), (3, 6)),
    "1d": (lambda: nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"), (4, 9)),
    "2d": (lambda: nn.Conv2d(2, 3, (3, 2), stride=2, dilation=(1, 2)), (2, 9, 9)),
    "groups": (lambda: nn.Conv2d(4, 8, 3, groups=2, bias=False), (4, 7, 7)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), (4, 7, 7)),
    "3d": (lambda: nn.Conv3d(1, 2, 2), (1, 4, 4, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("count", [1, 200])
def test_a_refit_finds_the_weights_that_give_what_was_missed(name, count, monkeypatch):
    """Without a ridge it finds another layer's weights from that layer's outputs; from one input, where there are more
    features than rows, some that give the same outputs."""
    monkeypatch.setattr(ROOM, "_RIDGE", 1e-12)
    build, shape = LAYERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer, other = build().double(), build().double()
    x = inputs(shape, count)
    with torch.no_grad():
        ROOM._refit(layer, x, other(x) - layer(x))
    torch.testing.assert_close(layer(x), other(x), rtol=1e-6, atol=1e-6)
    if count > 1:
        torch.testing.assert_close(layer.weight, other.weight, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_behind_a_smooth_unit_are_fitted_again(name, monkeypatch):
    """On every input, or on some where the table of all would be too large."""
    build, shape = LAYERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.LeakyReLU(0.2), build()).double().eval()
    x, soft = inputs(shape, 64), {"activation": 1.0}
    plain, fitted = (relax(model, x, sharpness=soft, refit=refit) for refit in (False, True))
    assert (plain.refitted, fitted.refitted) == ([], ["1"])
    assert float(fitted.moved.square().sum()) < float(plain.moved.square().sum())
    monkeypatch.setattr(ROOM, "_TABLE", 200)
    assert not torch.equal(relax(model, x, sharpness=soft).model[1].weight, fitted.model[1].weight)


class Sorted(nn.Module):
    def forward(self, x):
        return torch.relu(x) + x.sort(1).values + torch.linalg.vector_norm(x, 1, dim=1, keepdim=True)


def test_what_is_not_followed_is_named_and_left():
    relaxed = relax(Sorted(), inputs((5,)))
    assert relaxed.replaced == ["model:relu"]
    assert "use amax, amin or maximum" in relaxed.left["model:sort"]
    assert "model:linalg_vector_norm" in relaxed.left


class Bounded(nn.Module):
    def forward(self, x):
        return x.clamp(min=x.mean(1, keepdim=True))


def test_a_threshold_that_depends_on_the_input_is_left():
    assert relax(Bounded(), inputs((5,))).left == {"model:clamp": "its thresholds depend on the input"}


def test_a_report_says_what_was_done():
    model = models.cnn((1, 8, 8), 2, channels=4, depth=1, pooling="max").double().eval()
    text = relax(model, inputs((1, 8, 8))).report()
    for part in ("made smooth: ", "fitted again: ", "outputs moved by ", "SMP, per line between", "roughness, per"):
        assert part in text
    assert ", 0 after" in text


def _mlp():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()


def _nan():
    x = inputs((3,))
    x[2, 1] = math.nan
    return x


def _endless():
    model = _mlp()
    model[0].weight.data.fill_(math.nan)
    return model


REFUSED = {
    "no module": (lambda: torch.relu, inputs((3,)), {}, TypeError, "it must be a torch.nn.Module"),
    "no tensor": (_mlp, [1.0], {}, TypeError, "calibration = .* must be a tensor"),
    "empty": (_mlp, inputs((3,), 0), {}, ValueError, r"calibration has shape \(0, 3\): it must be \(N, \*input_shape"),
    "shape": (_mlp, inputs((4,)), {}, ValueError, r"does not take calibration inputs of shape \(2, 4\)"),
    "NaN": (_mlp, _nan(), {}, ValueError, r"calibration\[2\] holds NaN"),
    "weights": (_endless, inputs((3,)), {}, ValueError, "output on the calibration inputs is not finite"),
    "layer": (_mlp, inputs((3,)), {"layers": ["1:relu", "relu1"]}, ValueError,
              "layers has 'relu1', which the model does not have; it has: 1:relu"),
    "sorting": (Sorted, inputs((3,)), {"layers": ["model:sort"]}, ValueError, "model:sort cannot be made smooth: "),
    "b": (_mlp, inputs((3,)), {"sharpness": {"pool": 0}}, ValueError, "sharpness = .* must be numbers above 0"),
    "b's name": (_mlp, inputs((3,)), {"sharpness": {"relu": 1.0}}, ValueError, "sharpness = .* named 'pool'"),
    "training": (lambda: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), inputs((3,)), {}, ValueError, "eval"),
    "no output": (lambda: Nothing(), inputs((3,)), {}, TypeError, "returns a NoneType without a floating tensor"),
}


class Nothing(nn.Module):
    def forward(self, x):
        return None


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    build, calibration, options, error, sentence = REFUSED[name]
    with pytest.raises(error, match=sentence):
        relax(build(), calibration, **options)
