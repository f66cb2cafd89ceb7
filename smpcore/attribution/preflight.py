"""What is asked of a model before it is measured: does it run, is all that switches in sight, where are the samples."""

import warnings

import torch
from torch import Tensor
from torch.autograd import forward_ad

from smpcore.attribution.switch_events import find_layout
from smpcore.inspection.checks import runs
from smpcore.inspection.opaque_ops import Hidden, hidden_switches

__all__ = ["probe"]


def probe(run, tolerance: float) -> None:
    """Try a measurement on a few samples, and find out each layer's layout.

    Parameters
    ----------
    run
        A `Measurement`; its ``layouts`` and ``numbers`` are filled in.
    tolerance
        Samples of one path, computed in other batches, agree to this.

    Raises
    ------
    ValueError, TypeError
        For a model that fails, a path that gives NaN, switches out of sight, output that is not a function of t.
    """
    # Moments that no symmetry of the path is likely to make alike; batches of three and of five, for the dimension
    # that holds the samples grows with them.
    a, b, c = (run.times[round(part * (len(run.times) - 1))] for part in (0.146, 0.382, 0.709))
    few, more = torch.stack([a, a, b]), torch.stack([a, a, c, c, b])
    hidden = _plainly(run, few)
    seen_first = {}

    def observe(layer, seen, edge, value, where):
        with torch.no_grad():
            _check_numbers(layer, seen, few)
            seen_first[layer] = run.rows(seen, value).detach().clone()
        run.numbers += (value.numel() + sum(part.numel() for part in seen.inputs)) / len(few)

    def compare(layer, seen, edge, value, where):
        with torch.no_grad():
            _check_numbers(layer, seen, more)
            rows = run.rows(seen, value).detach()
            run.layouts[layer] = find_layout(seen_first.pop(layer, rows), rows, tolerance)

    first, node = _once(run, few, observe)
    second, _ = _once(run, more, compare)
    scale = tolerance * (1 + float(first.abs().max()))
    if not bool(first.isfinite().all()):
        return
    if float((first - second[[0, 1, 4]]).abs().max()) > scale or float((first[0] - first[1]).abs().max()) > scale:
        raise ValueError("the model's output changes between calls with the same input (random numbers, a "
                         "counter), or depends on the place in the batch or on its size: it is not a function of t; "
                         "call model.eval(), fix the random numbers, or reset its state in forward")
    _warn_of_custom(hidden, _custom(node))


def _plainly(run, times: Tensor) -> list[Hidden]:
    """A plain pass first: what fails there is not the measurement's doing."""
    x = run.inputs(times)
    bad = x.isnan().flatten(1).any(1).nonzero()
    if len(bad):
        raise ValueError(f"the path's input is NaN at t = {float(times[int(bad[0, 0])]):g}")
    with runs(run.dtype, x, run.model):
        hidden = hidden_switches(run.model, x, run.scope)
    for found in hidden:
        if found.switches and found.way != "custom":
            raise ValueError(found.sentence)
    return hidden


def _check_numbers(layer: str, seen, times: Tensor) -> None:
    if any(bool(part.isnan().any()) for part in seen.inputs):
        raise ValueError(f"the input of {layer} is NaN at t = {float(times[0]):g} or {float(times[-1]):g}: look at the "
                         "path's input there, and at what stands before that layer")


def _once(run, times: Tensor, observe):
    with forward_ad.dual_level():
        value, _ = run.forward(times, observe, known=True)
        return value.detach(), value.grad_fn


def _warn_of_custom(hidden: list[Hidden], nodes: list[str]) -> None:
    inside = [found for found in hidden if found.way == "custom"]
    if not nodes and not inside:
        return
    which = ", ".join(nodes) or "on the way to the output"
    ops = ", ".join(dict.fromkeys(found.op for found in inside if found.switches))
    warnings.warn(f"the model runs a custom autograd function ({which}): what switches inside it is not counted"
                  + (f", and {ops} does" if ops else ""), stacklevel=5)


def _custom(node) -> list[str]:
    """Names of the custom autograd functions in a graph."""
    found, seen, stack = {}, set(), [node]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            found[type(node).__name__.removesuffix("Backward")] = True
        stack.extend(parent for parent, _ in node.next_functions)
    return list(found)
