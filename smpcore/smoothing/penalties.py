"""Penalties that keep a network smooth while it is trained, and an estimate of SMP that needs no path."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from smpcore.arguments import FUNCTION, POSITIVE, TENSOR, checked, checked_copy, with_gradients
from smpcore.inspection.calls import watched
from smpcore.units import Hinges, Selection

__all__ = ["curvature_penalty", "expected_smp"]


@checked(model=FUNCTION, inputs=TENSOR, direction=TENSOR, step=POSITIVE)
def curvature_penalty(model: Callable[[Tensor], Tensor], inputs: Tensor, direction: Tensor, step: float) -> Tensor:
    """Mean |f(x + h d) − 2 f(x) + f(x − h d)|/h² over inputs and outputs: add it to the loss, times a strength.

    It sees the kinks and the bends that a video at that step shows. On smooth activations it costs no accuracy; on
    kinked ones it does, for a kink cannot be rounded, only made small.

    Parameters
    ----------
    model
        Returns a tensor, or tensors in a tuple or dictionary.
    inputs, direction
        ``(N, *input_shape)`` each: x, and the velocity d = dx/dt of a motion that the network is to follow.
    step
        h, positive, in the unit of t.

    Returns
    -------
    Tensor
        A scalar, differentiable with respect to the model's parameters, in output units over t².

    Raises
    ------
    TypeError, ValueError
        For arguments of another kind, inputs and directions of different shapes, a step that is not positive.
    """
    if inputs.shape != direction.shape:
        raise ValueError(f"inputs has shape {tuple(inputs.shape)} and direction {tuple(direction.shape)}: each input "
                         "needs a direction of its own shape")
    ahead, here, behind = flat_outputs(model(torch.cat([inputs + step * direction, inputs, inputs - step * direction]))
                                       ).chunk(3)
    return (ahead - 2 * here + behind).abs().mean() / step**2


@with_gradients
@checked(model=FUNCTION, x0=TENSOR, x1=TENSOR)
def expected_smp(model: nn.Module | Callable[[Tensor], Tensor], x0: Tensor, x1: Tensor) -> Tensor:
    """Mean SMP of the straight lines between pairs of inputs, estimated from their ends and middles alone.

    Where a unit's input goes from a₀ to a₁ steadily, |½(φ(a₀) + φ(a₁)) − φ(½(a₀ + a₁))| is on average an eighth of the
    jump of its slope if it switches in between, wherever it does, and 0 if it does not. So SMP is 8 Σ |that| · |gain|
    over the units, with the gain from the unit to the output in the middle (our own derivation,
    in notebook 10, "SMP without a path").

    Parameters
    ----------
    model
        In evaluation mode. Value jumps are not counted.
    x0, x1
        ``(N, *input_shape)`` each. Close pairs give a better estimate of what happens near them, far pairs miss units
        that switch more than once.

    Returns
    -------
    Tensor
        ``(m,)`` for the line x₀ + t (x₁ − x₀), t in [0, 1]. For pairs a time h apart on a path divide by h²: SMP per
        unit of time. The outputs are all floating tensors that the model returns, flattened, in order.

    Raises
    ------
    TypeError, ValueError
        For arguments of another kind, ends of different shapes, or that are not finite; what `smpcore.attribute`
        refuses in a model.
    """
    if x0.shape != x1.shape or x0.dim() < 2 or not len(x0):
        raise ValueError(f"x0 has shape {tuple(x0.shape)} and x1 {tuple(x1.shape)}: both must be (N, *input_shape)")
    if not bool(x0.isfinite().all() and x1.isfinite().all()):
        raise ValueError("x0 or x1 holds NaN or infinity")
    model = checked_copy(model, x0.dtype)
    ends: list[dict] = [{}, {}]
    for record, x in zip(ends, (x0, x1), strict=True):
        with torch.no_grad(), watched(model, _recorder(record)):
            model(x)
    gaps, edges = [], []

    def answer(call):
        seen = call.describe() if call.moves else None
        result = call.plain()
        if isinstance(seen, Hinges | Selection):
            gaps.append(_gap(seen, *(record[call.key] for record in ends)))
            edges.append(torch.autograd.graph.get_gradient_edge(result if isinstance(result, Tensor) else result[0]))
        return result

    with torch.enable_grad(), watched(model, answer):
        z = flat_outputs(model(((x0 + x1) / 2).detach().requires_grad_().clone()))
    total = z.new_zeros(z.shape[1])
    for output in range(z.shape[1] if edges and z.requires_grad else 0):
        gains = torch.autograd.grad(z[:, output].sum(), edges, retain_graph=True, allow_unused=True)
        total[output] = sum((gap * gain.flatten().abs()).sum() for gap, gain in zip(gaps, gains, strict=True)
                            if gain is not None)
    return 8 * total.detach() / len(x0)


def flat_outputs(result) -> Tensor:
    """``(N, m)``: every floating tensor that a model returned for N inputs, flattened, in order.

    Raises
    ------
    TypeError
        Where there is none.
    """
    found = [part for part in tree_leaves(result) if isinstance(part, Tensor) and part.is_floating_point()]
    if not found:
        raise TypeError(f"the model returns a {type(result).__name__} without a floating tensor in it: wrap it in a "
                        "module that returns its outputs as a tensor, a tuple or a dictionary of tensors")
    return torch.cat([part.reshape(len(part), -1) for part in found], 1)


def _recorder(record: dict) -> Callable:
    def answer(call):
        seen = call.describe()
        if seen is not None:
            record[call.key] = tuple(part.detach().clone() for part in seen.inputs)
        return call.plain()

    return answer


def _gap(seen: Hinges | Selection, start: tuple, end: tuple) -> Tensor:
    """(units,): the mean of a unit's values at both ends minus its value in the middle, over all its thresholds."""
    middle = tuple((a + b) / 2 for a, b in zip(start, end, strict=True))
    with torch.no_grad():
        if isinstance(seen, Selection):
            low, high, between = (seen.output(*inputs)[0] for inputs in (start, end, middle))
            return ((low + high) / 2 - between).abs().flatten()
        found = torch.zeros_like(middle[0])
        for hinge in seen.hinges:
            low, high, between = ((inputs[0] - hinge.at).relu() for inputs in (start, end, middle))
            found += abs(hinge.above - hinge.below) * ((low + high) / 2 - between).abs()
        return found.flatten()
