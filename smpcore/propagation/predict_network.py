"""The SMP of a whole network predicted from its architecture and a path alone.

Weights count as drawn at random, with the second moments that each layer's have; given the path, the channels of
a layer are then independent copies of a Gaussian field over the map. Forward, the second moments of values and
slopes along the path travel from layer to layer, with those between positions that a later pooling joins;
backward, the mean squared gains. A layer adds

    ∫ Σ_u |p − q| (λ_u − c_u²/σ_u²)/(σ_u √(2π)) · E|gain_u| dt

(Rice's formula at every unit, on a path that need not be stationary), a max pooling its changes of the largest
input. Our own derivation (notebook 06, "How it is computed") from the task set by R. Liu, C.-W. Wong, H. Dai,
arXiv:2103.14731 (2021); the forward recursion of values is that of R. Neal, 1996, and Y. Cho and L. Saul, NIPS 2009.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from smpcore.arguments import checked_times, home_of, with_gradients
from smpcore.propagation.layer_graph import steps
from smpcore.propagation.measured_moments import predict_from_reference
from smpcore.propagation.path_nodes import chosen_times, inputs
from smpcore.propagation.random_weights.recursion import walk
from smpcore.propagation.weight_spread import relative_spread

__all__ = ["LayerPrediction", "NetworkPrediction", "predict_network"]


@dataclass(frozen=True)
class LayerPrediction:
    """What one call adds.

    Attributes
    ----------
    name, kind
        As the measurement names them: ``module.path:operation``, and in words.
    smp
        ``(m,)`` its part of each output's expected SMP, in output units per unit of t.
    smp_se
        ``(m,)`` Monte Carlo standard error: of moments drawn before it, of gains drawn behind it, and of the windows
        and integrals of a pooling. 0 where there are none.
    kinks
        ``(m,)`` how many kinks of each output it makes, expected.
    how
        ``"simulated"`` where that error is above 0 for any output, else ``"closed form"``.
    """

    name: str
    kind: str
    smp: Tensor
    smp_se: Tensor
    kinks: Tensor
    how: str


@dataclass(frozen=True)
class NetworkPrediction:
    """Expected SMP of each output along a path, layer by layer.

    Attributes
    ----------
    total, total_se
        ``(m,)`` the sum over the layers, and its Monte Carlo standard error.
    kinks
        ``(m,)`` expected number of kinks, the sum over the layers. Every switch of a unit counts that an open path
        joins to the output, which in wide layers all are; a pair that decides several windows of a pooling, and a
        unit that leads in several, counts once in each.
    layers
        In order of execution, one for each call that can switch.
    nodes
        At how many of the times the moments were taken: 33, and more for a path that moves unevenly.
    nodes_error
        ``(m,)`` by how much the total would change with half as many: an estimate, on the safe side, of what the
        integral over time leaves out.
    moments
        ``"weights"`` or ``"measured"``.
    """

    total: Tensor
    total_se: Tensor
    layers: list[LayerPrediction]
    nodes: int
    nodes_error: Tensor
    moments: str = "weights"
    relative_spread: Callable[[], Tensor] | None = field(default=None, repr=False)

    @property
    def kinks(self) -> Tensor:
        return sum((layer.kinks for layer in self.layers), torch.zeros_like(self.total))

    @functools.cached_property
    def std(self) -> Tensor:
        """``(m,)`` standard deviation of SMP over draws of the weights, simulated when it is first asked for.

        The prediction times the relative scatter of 128 networks whose weights are drawn from the model's, layer by
        layer and with random signs (`weight_spread`). Two errors of its own: 6% of that simulation, and, because the
        readout's size is the model's own, 0.75/√n for a readout of n Gaussian weights (9% for 64, 5% for 256).

        Raises
        ------
        ValueError
            With measured moments, which are those of one network.
        """
        if self.relative_spread is None:
            raise ValueError("moments='measured' are those of one network, whose SMP does not scatter over weights: "
                             "std is there with moments='weights'")
        return self.total * self.relative_spread() if self.layers else torch.zeros_like(self.total)

    def errors(self, reference, path):
        """A measured prediction's two errors apart, by layer and in total, as a pandas frame.

        Parameters
        ----------
        reference, path
            What was measured on the reference and on the path (`smpcore.attribute`): anything with ``layers`` that have
            a ``name`` and ``smp (m,)``.

        Returns
        -------
        pandas.DataFrame
            Columns layer (and ``"total"``), output, predicted, on_reference, on_path; law, predicted over on_reference:
            what is wrong with the Gaussian law, and no prediction, for both are of one path; and transfer, on_reference
            over on_path: how the two paths differ.

        Raises
        ------
        ValueError
            For moments="weights", which have no reference, and for measurements of other layers.
        """
        import smpcore

        if self.moments != "measured":
            raise ValueError("moments='weights' have no reference, so no error of transfer: compare total with the "
                             "mean over drawn networks")
        names = [layer.name for layer in self.layers]
        parts = [{layer.name: layer.smp for layer in each.layers} for each in (self, reference, path)]
        for by_name in parts:
            if not set(names) <= set(by_name):
                raise ValueError(f"the measurement has layers {', '.join(by_name)}, the prediction {', '.join(names)}: "
                                 "measure the same model")
            by_name["total"] = sum(by_name[name] for name in names)
        frame = smpcore.need("pandas").DataFrame(
            [(name, output, *(float(by_name[name][output]) for by_name in parts))
             for name in [*names, "total"] for output in range(len(self.total))],
            columns=["layer", "output", "predicted", "on_reference", "on_path"])
        return frame.assign(law=frame.predicted / frame.on_reference, transfer=frame.on_reference / frame.on_path)

    def to_frame(self):
        """Long format: a pandas frame with columns layer, kind, output, smp, smp_se, kinks, how."""
        import smpcore

        pd = smpcore.need("pandas")
        rows = [(layer.name, layer.kind, output, *numbers, layer.how) for layer in self.layers
                for output, numbers in enumerate(torch.stack([layer.smp, layer.smp_se, layer.kinks], 1).tolist())]
        return pd.DataFrame(rows, columns=["layer", "kind", "output", "smp", "smp_se", "kinks", "how"])


@with_gradients
def predict_network(model: nn.Module, path: Callable[[Tensor], Tensor], times: Tensor, *, moments: str = "weights",
                    reference: Callable[[Tensor], Tensor] | None = None) -> NetworkPrediction:
    """Expected SMP of a network's outputs along a path, without running it.

    Parameters
    ----------
    model
        Any module whose layers are known, in evaluation mode. A copy is run on a tensor without numbers, which tells
        its calls, whatever code it consists of. An output that is no tensor needs a wrapper.
    path
        ``path(t: (P,) float64) -> (P, *input_shape)``, input shape (features,), (C, L) or (C, H, W).
    times
        ``(P,)``, increasing. 33 of them, evenly chosen, carry the moments, or as many as it takes for their integral
        of |x'|²/|x| to be that of all times to 1%.
    moments
        ``"weights"``: the mean over networks whose weights are drawn with the second moments, layer by layer, of
        the model's. ``"measured"``, for a trained network: means and covariances of each unit's values and slopes (of a
        pooling's windows those between their members, too) and its mean |gain| are read along ``reference``, in
        overlapping stretches of eight intervals between ``times``; no switch is counted. Only the Gaussian law is then
        left, and it resolves what a unit does to about three intervals. How far that law is off, and how far the
        reference differs from the path, `NetworkPrediction.errors` keeps apart.
    reference
        Another path of the same family, for ``"measured"``; evaluated at ``times``. The model runs on it alone.

    Returns
    -------
    NetworkPrediction

    Raises
    ------
    ValueError, TypeError
        For a layer without a rule (its name, and those that have one), a model in training mode with batch norm or
        dropout, weights that are not finite, times that do not increase; a path or reference without a tangent, not
        finite, or whose inputs do not fit; one that moves too unevenly for its nodes; ``moments`` and ``reference``
        that do not go together, a reference that is the path itself; a pooling window over 16; a map of more than 2,500
        positions of which all pairs are needed.

    Notes
    -----
    Assumes wide layers whose weights are drawn independently, each with mean 0: biases and a batch norm's shifts enter
    by their mean squares, so what all channels have in common is taken for scatter between them. Of n channels the
    mean square σ² of a layer fluctuates from draw to draw, by a relative variance of 0.4/n to 1.1/n in CNNs with
    average pooling. The mean rate of switches is then not that of the mean σ²: by a factor in the tail, where Hardswish
    switches (4 at 48 channels, 3 at 96), next to nothing of a network's total; hardly for units that switch near 0.
    Measured over predicted, 120 CNNs of 24 channels with average pooling: ReLU, leaky ReLU, PReLU, hardtanh 1.00, ReLU6
    1.01, each ± 0.006, where every network is predicted by its own weights' moments. These scatter as well: one
    network's prediction is off the mean over such networks by 7% there (standard deviation). Channels of a
    depthwise convolution each read one channel (or up to eight), whose size is its own: they are Gaussian given that
    channel alone, so their rates are means over draws of it. In networks that have one, or where windows of an average
    pooling overlap, maps and gains are simulated: up to 128 channels of them, four times over, pass through weights
    drawn anew at every layer, forward and backward, and are scaled to the mean squares that the recursion gives (our
    own derivation, held against drawn networks by the tests). Measured over predicted, 24 networks each, of 32×32
    pictures of noise, every network by its own weights' moments, which alone make a MobileNet's SMP scatter by 8%:
    1.00 ± 0.04 (MobileNetV2), 1.06 ± 0.06 (MobileNetV1), at 641 samples, which find 99% of an exact trace's SMP (41
    samples 94%). By layer it is 0.9 in the first layers and up to 1.2 in the last ones. We have not shown why; what the
    gains or σ² of all channels of a layer have in common scatters from draw to draw, which has an effect of that sign.

    Moments of pairs of positions are carried where a max pooling's windows, an average pooling or an upsampling need
    them for what switches behind, and only there. Measured on one thread: a CNN of 24 channels on 14×14 pictures 0.5 s
    and 0.2 GB with average pooling (1.1 s where units are smooth or have several thresholds), 1.1 to 1.5 s and 0.3 GB
    with max pooling; ResNet-18 on 224×224 pictures 2 to 4 min and 0.9 GB, MobileNetV1 and V2 2 to 3 min and 1.9 GB,
    on 32×32 12 s. Windows of maps with more than 128 are drawn at random. ``"measured"`` goes along the reference in
    parts of 64 MB, and twice more, without gains, where there is a max pooling.
    """
    times = checked_times(times)
    if moments not in ("weights", "measured"):
        raise ValueError(f"moments = {moments!r}: it must be 'weights' or 'measured'")
    if (reference is None) != (moments == "weights"):
        raise ValueError("moments='measured' needs reference, another path of the same family, and "
                         "moments='weights' takes none")
    _check_weights(model)
    times = times.to(home_of(model, times))
    if moments == "measured":
        return _measured(model, path, reference, times)
    graph = steps(model, inputs(path, times[:1])[0].shape[1:])
    nodes = times[chosen_times(path, times)]
    found = walk(graph, inputs(path, nodes)) if any(step.switches for step in graph) else []
    spread = functools.partial(relative_spread, model, graph, path, times)
    return _integrated(found, nodes, times.new_zeros(graph[-1].shape.numel()), spread)


def _check_weights(model) -> None:
    tensors = [*model.named_parameters(), *model.named_buffers()] if isinstance(model, nn.Module) else []
    for name, tensor in tensors:
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"the model's {name} holds NaN or infinity: every weight has to be finite")


def _measured(model, path, reference, times: Tensor) -> NetworkPrediction:
    _check_reference(path, reference, times)
    graph = steps(model, inputs(reference, times[:1], "reference")[0].shape[1:])
    found = predict_from_reference(model, graph, reference, times)
    layers = [_layer(step.name, step.kind, *numbers) for step, *numbers in found]
    nothing = times.new_zeros(graph[-1].shape.numel())
    total = sum((layer.smp for layer in layers), nothing)
    error = sum((layer.smp_se**2 for layer in layers), nothing).sqrt()
    return NetworkPrediction(total, error, layers, len(times), torch.zeros_like(total), "measured")


def _check_reference(path, reference, times: Tensor) -> None:
    """A prediction from the very path that it is compared with would be a measurement: refuse."""
    some = times[torch.linspace(0, len(times) - 1, min(len(times), 33)).round().long()]
    here, there = inputs(path, some)[0], inputs(reference, some, "reference")[0]
    if here.shape != there.shape:
        raise ValueError(f"the reference's inputs have shape {tuple(there.shape[1:])}, the path's "
                         f"{tuple(here.shape[1:])}: both have to be of one family")
    if reference is path or bool((here == there).all()):
        raise ValueError("the reference is the path itself, and what is measured along it is no prediction: give "
                         "another path of the same family")


def _layer(name: str, kind: str, smp: Tensor, error: Tensor, kinks: Tensor) -> LayerPrediction:
    return LayerPrediction(name, kind, smp, error, kinks, "simulated" if bool((error > 0).any()) else "closed form")


def _integrated(found, nodes: Tensor, nothing: Tensor, spread: Callable) -> NetworkPrediction:
    """Rates (R, P, m) of each layer, integrated over time; replicates give the error. ``nothing`` is (m,) zeros."""
    def over(rates, at):
        return torch.trapezoid(rates, at, dim=1)

    half = torch.cat([torch.arange(0, len(nodes) - 1, 2), torch.tensor([len(nodes) - 1])]).to(nodes.device)
    layers, whole, coarse = [], nothing[None], nothing[None]
    for part in found:
        each = over(part.rates, nodes)
        whole, coarse = whole + each, coarse + over(part.rates[:, half], nodes[half])
        kinks = over(part.kinks, nodes).mean(0).expand(each.shape[1])
        layers.append(_layer(part.name, part.kind, each.mean(0), _error(each), kinks))
    return NetworkPrediction(whole.mean(0), _error(whole), layers, len(nodes), (whole - coarse).mean(0).abs(),
                             relative_spread=spread)


def _error(each: Tensor) -> Tensor:
    if len(each) == 1:
        return torch.zeros_like(each[0])
    return each.std(0) / math.sqrt(len(each))
