"""What a prediction of a whole network refuses: layers without a rule, maps that do not fit, arguments that clash."""

import math

import pytest
import torch
from torch import nn

from smpcore import models, paths, propagation
from smpcore.propagation.layer_graph import known_layers
from smpcore.propagation.random_weights.max_pool import shared_pairs
from smpcore.units import windows

F64 = torch.float64


class Then(nn.Module):
    """A network of features, or of maps, with code of its own in the middle."""

    def __init__(self, function, maps=False, out=4):
        super().__init__()
        self.function = function
        self.first = nn.Conv2d(1, 4, 3) if maps else nn.Linear(8, 4)
        self.other = nn.Conv2d(1, 3, 3) if maps else nn.Linear(8, 3)
        self.out = nn.Linear(out, 1)

    def forward(self, x):
        return self.out(self.function(self, x))


def decides(net, x):
    return net.first(x) if x.sum() > 0 else -net.first(x)


class Two(nn.Module):
    def forward(self, x):
        return x, x


def sequence(*layers):
    return nn.Sequential(*layers).eval()


REFUSED = [
    ("no rule", sequence(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 1)), "1:layer_norm has no rule .* ReLU"),
    ("training", nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)), r"training mode.*model\.eval"),
    ("two outputs", Two(), "returns more than one tensor"),
    ("no readout", sequence(nn.Linear(8, 4), nn.ReLU()), "a linear readout is needed"),
    ("relu first", sequence(nn.ReLU(), nn.Linear(8, 1)), "acts on the inputs themselves"),
    ("features", sequence(nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 1)),
     r"0:linear does not take what it gets, of shape \(8,\)"),
    ("bent twice", sequence(nn.Linear(8, 4), nn.Tanh(), nn.ReLU(), nn.Linear(4, 1)), "neither Gaussian nor positive"),
    ("code", Then(decides).eval(), "cannot be read from its code"),
    ("function", Then(lambda net, x: torch.sin(net.first(x))).eval(), "model:sin has no rule"),
    ("dropout", Then(lambda net, x: nn.functional.dropout(net.first(x))).eval(), "dropout draws at random"),
    ("plus one", Then(lambda net, x: net.first(x) + 1).eval(), "of anything but two layers' outputs"),
    ("view", Then(lambda net, x: net.first(x).relu().view(-1, 2, 2), out=2).eval(), "picks or reorders numbers"),
    ("unlike", Then(lambda net, x: net.first(x) + net.other(x)).eval(), "model:add does not take what it gets"),
    ("itself", Then(lambda net, x: (net.first(x) + net.first(x)).relu()).eval(), "not independent"),
    ("hardtanh", Then(lambda net, x: nn.functional.hardtanh(torch.tanh(net.first(x)))).eval(), "that is not Gaussian"),
    ("part", Then(lambda net, x: net.first(x).relu()[:, :4]).eval(), "picks or reorders numbers"),
    ("no sides", Then(lambda net, x: nn.functional.avg_pool1d(net.first(x), 2).relu(), out=2).eval(),
     "needs a map with sides"),
    ("no windows", Then(lambda net, x: nn.functional.max_pool1d(net.first(x), 2), out=2).eval(),
     "needs a map with sides"),
    ("running", sequence(nn.Linear(8, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.ReLU(), nn.Linear(4, 1)),
     "keeps no running statistics"),
    ("shifted", None, "shifts a map that is not Gaussian"),
]


@pytest.mark.parametrize(("model", "sentence"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_has_no_rule_is_refused_by_name(model, sentence):
    if model is None:
        model = sequence(nn.Linear(8, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 1))
        model[2].running_mean.fill_(1.0)
    with pytest.raises(ValueError, match=sentence):
        propagation.predict_network(model, paths.circle(8), torch.linspace(0, 1, 9, dtype=F64))



REFUSED_CALLS = [
    ("part in place", lambda net, x: _in_place(net.first(x)), "writes into a part of another tensor"),
    ("bounds", lambda net, x: torch.clamp(net.first(x), None, net.first(x)), "of several computed tensors"),
    ("indices", lambda net, x: nn.functional.max_pool1d(net.first(x)[:, None], 1, return_indices=True)[0].flatten(1),
     "with its indices"),
    ("pieces", lambda net, x: torch.cat(net.first(x).chunk(2, 1), 1).relu(),
     "model:chunk that parts the batch has no rule"),
    ("batch", lambda net, x: net.first(x).flatten(0).view(-1, 4).relu(), "that parts the batch has no rule"),
    ("constant", lambda net, x: torch.ones(len(x), 4, dtype=x.dtype, device=x.device), "does not depend on its input"),
    ("attention", lambda net, x: _attended(net.first(x)), "model:softmax is a part of attention, which has no rule"),
]


def _in_place(x):
    x[:, :2].relu_()
    return x


def _attended(x):
    weights = torch.softmax(x[:, :, None] * x[:, None], -1)
    return (weights @ x[..., None]).flatten(1)


@pytest.mark.parametrize(("function", "sentence"), [case[1:] for case in REFUSED_CALLS],
                         ids=[case[0] for case in REFUSED_CALLS])
@pytest.mark.parametrize("kind", ["weights", "measured"])
def test_calls_without_a_rule_are_refused_by_name(function, sentence, kind):
    given = {} if kind == "weights" else {"moments": "measured", "reference": paths.circle(8, seed=1)}
    with pytest.raises(ValueError, match=sentence):
        propagation.predict_network(Then(function).eval(), paths.circle(8), torch.linspace(0, 1, 9, dtype=F64), **given)


def test_a_map_too_large_for_all_pairs_is_refused():
    model = sequence(nn.Conv2d(1, 2, 3, padding=1), nn.GELU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3), nn.MaxPool2d(2),
                     nn.Flatten(), nn.Linear(2 * 12 * 12, 1))
    with pytest.raises(ValueError, match="the moments of all pairs of 2704 positions are needed"):
        propagation.predict_network(model, paths.circle((1, 52, 52)), torch.linspace(0, 1, 3, dtype=F64))


@pytest.mark.parametrize("pads", [{"pad": (1, 1), "value": 1.0}, {"pad": (-1, 1)}])
def test_padding_with_numbers_and_cuts_are_refused(pads):
    model = Then(lambda net, x: nn.functional.pad(net.first(x), **pads).relu().flatten(1), maps=True,
                 out=4 * 4 * (6 if "value" in pads else 4)).eval()
    with pytest.raises(ValueError, match="pads with another number than 0, adds channels, or cuts"):
        propagation.predict_network(model, paths.circle((1, 6, 6)), torch.linspace(0, 1, 3, dtype=F64))


REFUSED_MAPS = [
    ("channels", sequence(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 1)), "0:conv2d does not take what it gets"),
    ("one side", sequence(nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(4, 1)), "0:conv1d does not take what it gets"),
    ("not flat", sequence(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Linear(4, 1)), "not flattened"),
    ("close windows", sequence(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(36, 1)),
     "windows that share 22% of their pairs"),
    ("dilated windows", sequence(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(3, 2, dilation=2, padding=1), nn.Flatten(),
                                 nn.Linear(16, 1)), "share .* of their pairs"),
    ("large windows", sequence(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d((3, 6)), nn.Flatten(), nn.Linear(8, 1)),
     "windows of 18 signals: up to 16"),
    ("pool after pool", sequence(nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 1)),
     "has to stand behind a linear or convolutional layer"),
    ("kernel", sequence(nn.Conv2d(1, 4, 9), nn.Flatten(), nn.Linear(4, 1)), "0:conv2d does not take what it gets"),
    ("window", sequence(nn.Conv2d(1, 4, 5), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(4, 1)),
     "1:max_pool2d does not take what it gets"),
    ("mean", Then(lambda net, x: net.first(x).mean(1).relu(), maps=True).eval(), "only over all positions is known"),
    ("falling", sequence(nn.Conv2d(1, 4, 3), nn.LeakyReLU(-0.2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 1)),
     "falls below 0"),
    ("dims", sequence(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(2), nn.Linear(16, 1)), "picks or reorders numbers"),
]


@pytest.mark.parametrize(("model", "sentence"), [case[1:] for case in REFUSED_MAPS],
                         ids=[case[0] for case in REFUSED_MAPS])
def test_maps_that_do_not_fit_are_refused(model, sentence):
    with pytest.raises(ValueError, match=sentence):
        propagation.predict_network(model, paths.circle((1, 6, 6)), torch.linspace(0, 1, 9, dtype=F64))


# settings, sides, share of pairs compared by an earlier window as well
@pytest.mark.parametrize(("settings", "sides", "share"), [
    ({"kernel_size": 2, "stride": 2}, (6, 6), 0.0), ({"kernel_size": 3, "stride": 2}, (7,), 0.0),
    ({"kernel_size": 2, "stride": 1}, (3, 2), 1 / 12), ({"kernel_size": 3, "stride": 1}, (4,), 1 / 6),
    ({"kernel_size": 2, "stride": 1, "dilation": 2}, (5,), 0.0),
    # {0, 2, 4}, {2, 4, 6}: the pair (2, 4) of six.
    ({"kernel_size": 3, "stride": 2, "dilation": 2}, (7,), 1 / 6),
])
def test_pairs_of_several_windows_are_counted(settings, sides, share):
    assert shared_pairs(windows(sides, **settings)[0]) == pytest.approx(share)


def test_what_overlaps_too_much_is_refused_with_measured_windows_only_for_their_size():
    model = sequence(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d((3, 6)), nn.Flatten(), nn.Linear(8, 1))
    with pytest.raises(ValueError, match="windows of 18 signals: up to 16"):
        propagation.predict_network(model, paths.circle((1, 6, 6)), torch.linspace(0, 1, 9, dtype=F64),
                                    moments="measured", reference=paths.circle((1, 6, 6), seed=1))


def small():
    return models.mlp(8, width=16, depth=1)


def spoiled():
    model = small()
    model[0].weight.data[0, 0] = math.nan
    return model


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"moments": "guessed"}, "must be 'weights' or 'measured'"),
    ({"moments": "measured"}, "needs reference"),
    ({"reference": paths.circle(8)}, "takes none"),
    ({"times": torch.tensor([0.0, 0.0])}, "times must increase"),
    ({"path": None}, "the path is a function of times .* not NoneType"),
    ({"path": lambda t: None}, "the path returns a NoneType: it must return a torch tensor"),
    ({"path": lambda t: torch.ones(len(t), 8, dtype=F64)}, "the path carries no tangent: .* differentiable"),
    ({"path": lambda t: t.detach()[:, None] * torch.ones(8, dtype=F64)}, "carries no tangent"),
    ({"path": lambda t: t[:, None] * torch.full((8,), math.nan, dtype=F64)}, "values are not finite at t = 0"),
    ({"path": lambda t: (t[:, None] - 0.5).abs().sqrt() * torch.ones(8, dtype=F64)}, "slopes are not finite at t"),
    ({"model": spoiled()}, "0.weight holds NaN or infinity"),
    ({"moments": "measured", "reference": 5}, "the reference is a function of times .* not int"),
    ({"moments": "measured", "reference": paths.circle(9)}, r"reference's inputs have shape \(9,\), the path's \(8,\)"),
    ({"moments": "measured", "reference": paths.circle(9), "path": paths.circle(9, seed=1)},
     "0:linear does not take what it gets"),
    ({"moments": "measured", "reference": paths.circle(8)}, "the reference is the path itself"),
    ({"moments": "measured", "reference": lambda t: t.detach()[:, None] + torch.ones(8, dtype=F64)},
     "the reference carries no tangent"),
    ({"moments": "measured", "reference": lambda t: t[:, None] / torch.zeros(8, dtype=F64)}, "reference's values"),
    ({"path": lambda t: t}, "one input for each time.*where an input is one number"),
    ({"path": lambda t: t.reshape(-1, 1, 1, 1, 1)}, r"\(C, H, W\) are known"),
])
def test_arguments_that_do_not_go_together(changes, sentence):
    given = {"model": small(), "path": paths.circle(8), "times": torch.linspace(0, 1, 9, dtype=F64)} | changes
    with pytest.raises((ValueError, TypeError), match=sentence):
        propagation.predict_network(given.pop("model"), given.pop("path"), given.pop("times"), **given)


def test_only_modules_can_be_read():
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        propagation.predict_network(lambda x: x, paths.circle(8), torch.linspace(0, 1, 9))
    assert "ReLU" in known_layers()
    assert "MaxPool2d" in known_layers()
