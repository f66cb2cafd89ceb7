"""Which layers to make smooth, and what to expect of it."""

import pytest
import torch

from smpcore import attribute, models, paths
from smpcore.attribution import Attribution, LayerSmp


def found(*parts):
    layers = [LayerSmp(f"{n}:relu", "relu", 1, 1, torch.tensor(part)) for n, part in enumerate(parts)]
    zero = torch.zeros(1, 2)
    return Attribution(torch.zeros(1), zero, zero, sum(layer.smp for layer in layers), zero[0], layers, zero[0])


EXAMPLE = found([1.0, 4.0], [6.0, 0.0], [3.0, 0.0], [0.0, 1.0])


@pytest.mark.parametrize(("reduction", "layers", "left"), [
    (0.5, ["1:relu"], [4.0, 5.0]), (0.8, ["1:relu", "2:relu"], [1.0, 5.0]), (0.9, ["1:relu", "2:relu"], [1.0, 5.0]),
    (1.0, ["1:relu", "2:relu", "0:relu"], [0.0, 1.0])])
def test_the_fewest_layers_are_named(reduction, layers, left):
    suggestion = EXAMPLE.suggest(reduction)
    assert suggestion.layers == layers
    assert suggestion.expected.tolist() == left


def test_each_output_has_its_own():
    assert EXAMPLE.suggest(output=1).layers == ["0:relu"]
    assert EXAMPLE.suggest(output=-1).layers == ["0:relu"]


def test_a_frame_and_a_sentence():
    suggestion = EXAMPLE.suggest(0.8)
    frame = suggestion.to_frame()
    assert frame["share"].tolist() == pytest.approx([0.6, 0.3])
    assert frame["left"].tolist() == pytest.approx([0.4, 0.1])
    assert repr(suggestion) == ("Suggestion: make 1:relu and 2:relu smooth; SMP of output 0 is expected to fall from "
                                "10 to 1 (90% less), if the network is not trained again")
    assert "nothing to replace" in repr(found([0.0, 0.0]).suggest())


def test_all_of_a_measured_network_can_be_asked_for():
    model = models.cnn((1, 8, 8), 1, channels=4, depth=2, pooling="max").double()
    result = attribute(model, paths.circle((1, 8, 8), seed=0), torch.linspace(0, 6, 101, dtype=torch.float64))
    suggestion = result.suggest(1.0)
    assert float(suggestion.expected) <= 1e-12 * float(result.total)


@pytest.mark.parametrize(("options", "sentence"), [
    ({"reduction": 0.0}, "reduction = 0.0: it is the share"), ({"reduction": 1.1}, "reduction = 1.1"),
    ({"output": 2}, "output = 2: the attribution has outputs 0 to 1")])
def test_what_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        EXAMPLE.suggest(**options)
