"""One rule for each layer: statistics go in, statistics come out.

`RULES` has the layers. Every elementwise unit of the table of `units` has the rule of `elementwise`, and so have
modules of others that consist of such units and arithmetic. To add a layer: a rule with its source, its line in
`RULES`, and a row in the table of cases of its test. Weights are those of the layer, as they are; for networks whose
weights are drawn see `smpcore.propagation.predict_network`.

Kinks travel as sources with signed gains (`kink_sources`), so what fans out and meets again adds with its signs.
Behind a unit each gain is multiplied by the unit's slope at a draw of its input, which is independent of the draws
at units before it and of the source's own kink: right to first order in the weights, that is for wide layers. Against
16 simulated signals of 401 samples, which miss a few per cent, it came out 5 to 6 % high behind two hidden layers of
64 He-initialised units, 6 to 9 % behind three, 5 to 10 % behind two of 16.
"""

from dataclasses import replace
from functools import singledispatch

import torch
from torch import Tensor, nn

from smpcore.arguments import refuse_training
from smpcore.propagation.given_weights.elementwise import unit
from smpcore.propagation.given_weights.max_pool import max_pool
from smpcore.propagation.given_weights.statistics import Statistics

__all__ = ["Residual", "propagate"]

# Independent terms of like size whose sum counts as Gaussian whatever they are themselves.
_MANY = 3


class Residual(nn.Module):
    """x + f(x): the residual sum, as a module that has a rule for a linear f."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


@singledispatch
def propagate(layer, statistics: Statistics) -> Statistics:
    """Statistics of a layer's outputs from those of its inputs.

    Parameters
    ----------
    layer
        An `nn.Module` of a kind that has a rule, subclasses having their parent's, or an elementwise unit.
    statistics
        Of its inputs; ``shape`` says how they are laid out.

    Returns
    -------
    Statistics
        With the expected SMP so far, old kinks passed on and the layer's own.

    Raises
    ------
    TypeError
        For a layer without a rule, with those that have one.
    ValueError
        For inputs that break an assumption of the rule, or do not fit the layer.
    """
    behind = unit(layer, statistics) if isinstance(layer, nn.Module) else None
    if behind is None:
        known = ", ".join(sorted(kind.__name__ for kind in RULES))
        raise TypeError(f"{type(layer).__name__} has no rule to propagate through; those that have one: {known}, and "
                        "every elementwise unit, such as ReLU")
    return behind


# Linear ---------------------------------------------------------------------------------------------------


def _identity(layer, statistics: Statistics) -> Statistics:
    return statistics


def _dropout(layer, statistics: Statistics) -> Statistics:
    """The identity in evaluation mode."""
    refuse_training(layer)
    return statistics


def _flatten(layer, statistics: Statistics) -> Statistics:
    """Another layout of the same signals."""
    return replace(statistics, shape=(len(statistics.mean),))


def _affine(layer, statistics: Statistics) -> Statistics:
    """y = W x + b, exactly: μ → Wμ + b, covariances → W C Wᵀ, each source's gain → W gain, with its sign.

    W and b are read off by sending the unit vectors through the layer: a convolution of any stride, padding,
    dilation and groups is one matrix. A linear or convolutional layer, half of whose outputs at least are sums of three
    or more independent terms of like size, gives signals that count as Gaussian (`_terms`).
    """
    refuse_training(layer)
    weight, bias, shape = _matrix(layer, statistics.shape)
    behind = statistics.linear(weight, bias.to(statistics.mean), shape)
    if not statistics.gaussian and isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
        behind = replace(behind, gaussian=bool(_terms(weight.to(statistics.mean), statistics).median() >= _MANY))
    return behind


def _terms(weight: Tensor, statistics: Statistics) -> Tensor:
    """How many independent terms of like size each sum has: (Σ v)²/Σ v² of its shares v of variance.

    The shares are those of the inputs' principal components: alike signals are one term, however many there are.
    """
    power, axes = torch.linalg.eigh(statistics.value_cov)
    shares = (weight @ axes) ** 2 * power.clamp(min=0)
    total = shares.sum(1)
    # What never varies is a Gaussian of variance 0.
    return torch.where(total > 0, total**2 / (shares**2).sum(1).clamp(min=1e-300), torch.inf)


def _matrix(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    inputs = torch.Size(shape).numel()
    if isinstance(layer, Residual):
        weight, bias, behind = _matrix_of_all(layer.inner, shape)
        if behind != tuple(shape):
            raise ValueError(f"the residual's inner layer turns {tuple(shape)} into {behind}: both have to be alike")
        return weight + torch.eye(inputs, dtype=torch.float64), bias, behind
    device = next((part.device for part in layer.parameters()), torch.device("cpu"))
    dtype = next((part.dtype for part in layer.parameters()), torch.float64)
    rows = torch.cat([torch.zeros(1, inputs), torch.eye(inputs)]).to(device, dtype).reshape(-1, *shape)
    try:
        with torch.no_grad():
            found = layer(rows)
    except RuntimeError as error:
        raise ValueError(f"{type(layer).__name__} cannot take inputs of shape {tuple(shape)}: {error}") from error
    flat = found.flatten(1).double().cpu()
    return (flat[1:] - flat[0]).T.contiguous(), flat[0], tuple(found.shape[1:])


def _matrix_of_all(layer: nn.Module, shape: tuple[int, ...]):
    """Of a layer, or a chain of them, that has to be linear."""
    inside = list(layer) if isinstance(layer, nn.Sequential) else [layer]
    weight, bias = torch.eye(torch.Size(shape).numel(), dtype=torch.float64), 0.0
    for part in inside:
        if propagate.dispatch(type(part)) is not _affine:
            raise ValueError(f"a residual sum around {type(part).__name__} has no rule: its kinks and values depend on "
                             "those that it is added to; only linear layers do")
        own, shift, shape = _matrix(part, shape)
        weight, bias = own @ weight, own @ bias + shift if torch.is_tensor(bias) else shift
    return weight, bias, shape


def _sequential(layer, statistics: Statistics) -> Statistics:
    """One layer after the other."""
    for part in layer:
        statistics = propagate(part, statistics)
    return statistics


#: One line a layer; subclasses follow.
RULES = {
    nn.Identity: _identity,
    nn.Dropout: _dropout,
    nn.Dropout2d: _dropout,
    nn.Flatten: _flatten,
    nn.Linear: _affine,
    nn.Conv1d: _affine,
    nn.Conv2d: _affine,
    nn.AvgPool1d: _affine,
    nn.AvgPool2d: _affine,
    nn.AdaptiveAvgPool1d: _affine,
    nn.AdaptiveAvgPool2d: _affine,
    nn.Upsample: _affine,
    nn.BatchNorm1d: _affine,
    nn.BatchNorm2d: _affine,
    Residual: _affine,
    nn.MaxPool1d: max_pool,
    nn.MaxPool2d: max_pool,
    nn.Sequential: _sequential,
}
for _kind, _rule in RULES.items():
    propagate.register(_kind, _rule)
