"""Integrated gradients of a piecewise-linear model, exact: the gradient is constant on each piece of the line."""

from collections.abc import Callable

import torch
from torch import Tensor

from smpcore.tracing.trace import Tracer

__all__ = ["integrated_gradients"]


def integrated_gradients(model: Callable, start: Tensor, end: Tensor, *, output: int | Callable = 0,
                         dtype: torch.dtype = torch.float64) -> Tensor:
    """What each number of the input contributes to an output's change from ``start`` (the baseline) to ``end``.

    Parameters
    ----------
    model, start, end, dtype
        As for `trace_line`.
    output
        An index into the outputs, flattened, or a callable from what the model returns to a tensor ``(P, 1)``.

    Returns
    -------
    Tensor
        ``(*input_shape)``: (end − start) times the mean gradient along the line. Its sum is the output's difference.

    Raises
    ------
    TypeError, ValueError
        As for `trace_line`; for a trace that is not certified (the stretch and the operation), and a callable that
        gives several outputs.

    Notes
    -----
    M. Sundararajan, A. Taly, Q. Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), there with the gradient at
    m points of the line; an integral over the straight pieces: M. Sotoudeh, A. Thakur (NeurIPS 2019). Here every
    number of the input comes from one backward pass through the trace: an output's difference is linear in the line's
    direction while the pieces are held fixed, and the derivative in that direction is the mean gradient. How far n
    midpoints would be off: `LineTrace.midpoint_error`.
    """
    tracer = Tracer(model, output, dtype)
    trace, mean = tracer.trace(start, end, gradient=True), tracer.mean_gradient
    trace.refuse_gaps("integrated gradients are known on straight pieces only")
    if len(trace.smp) != 1:
        raise ValueError(f"output gives {len(trace.smp)} outputs: integrated gradients are of one, so give its index")
    mean = torch.zeros_like(trace.slopes[0, 0]).expand(start.shape) if mean is None else mean
    return (end.detach().to(mean) - start.detach().to(mean)) * mean
