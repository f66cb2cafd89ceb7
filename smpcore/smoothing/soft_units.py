"""Smooth units in the place of kinked ones: softplus for a change of slope, log-sum-exp for a maximum.

Both are convex with a slope that rises steadily from one side's to the other's, so that between their ends the slope
turns as often as the kinked unit's does and no more. Their distance from the kinked unit is bounded by
log(k)/beta, k candidates each (2 for a softplus).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smpcore.units import Hinges, adaptive_windows, arguments, describe, windows

__all__ = ["LogSumExpPool1d", "LogSumExpPool2d", "LogSumExpPool3d", "SoftMaximum", "SoftUnit", "softened"]


class _Soft(nn.Module):
    """A smooth unit with its sharpness ``beta``, a number or a tensor that broadcasts to its input."""

    def __init__(self, beta: float | Tensor):
        super().__init__()
        beta = torch.as_tensor(beta, dtype=torch.get_default_dtype())
        if not bool((beta.isfinite() & (beta > 0)).all()):
            raise ValueError(f"beta = {beta.tolist()}: the sharpness must be positive and finite")
        self.register_buffer("beta", beta)

    def extra_repr(self) -> str:
        beta = f"{float(self.beta):.4g}" if self.beta.numel() == 1 else f"{self.beta.numel()} values"
        return f"beta={beta}"


class SoftUnit(_Soft):
    """An elementwise unit with each change of its derivative spread out: y = c + a g(x) + Σ Δ softplus(x − threshold).

    g is the identity, or ELU where the unit is exponential below its threshold; for hardswish, y times x.

    Parameters
    ----------
    seen
        What `smpcore.units.describe` says of one call.
    beta
        Sharpness of the softplus, log(1 + exp(beta x))/beta.
    """

    def __init__(self, seen: Hinges, beta: float | Tensor = 1.0):
        super().__init__(beta)
        x = seen.input.detach()
        self.times_input = seen.kind == "hardswish"
        self.exponential = seen.kind in ("elu", "selu")
        if self.times_input:
            seen = describe("hardsigmoid", (x,), {})
        self.count = len(seen.hinges)
        for number, hinge in enumerate(seen.hinges):
            at, below, above = (torch.as_tensor(part).to(x).clone() for part in hinge[:3])
            self.register_buffer(f"at{number}", at)
            self.register_buffer(f"rise{number}", above - below)
            if number == 0:
                # Left of the first threshold the unit is c + below · x, so c is read at that threshold.
                c = seen.output(at.expand_as(x[:1])) - below * at
                self.register_buffer("below", below)
                alike = bool((c == c.flatten()[0]).all())
                self.register_buffer("offset", c.flatten()[0].clone() if alike else c[0].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Tensor of any shape -> Tensor of that shape."""
        y = torch.addcmul(self.offset, self.below, F.celu(x) if self.exponential else x)
        zero = self.beta.new_zeros(())
        for number in range(self.count):
            at, rise = getattr(self, f"at{number}"), getattr(self, f"rise{number}")
            # Not F.softplus, which is the identity above its own threshold: a kink.
            y = torch.addcmul(y, rise / self.beta, torch.logaddexp(self.beta * (x - at), zero))
        return y * x if self.times_input else y

    def spread(self, x: Tensor) -> float:
        """Standard deviation of the unit's input."""
        return float(x.double().std(correction=0))


class SoftMaximum(_Soft):
    """Log-sum-exp over dimensions of one tensor, or of two tensors: the smooth `amax`, `amin`, `maximum`, `minimum`.

    Parameters
    ----------
    sign
        1 for the largest, −1 for the smallest.
    dim
        Dimensions of one tensor.
    keepdim
        Whether they stay, with size 1.
    beta
        Sharpness.
    """

    def __init__(self, sign: int, dim: tuple[int, ...] = (-1,), keepdim: bool = False, beta: float | Tensor = 1.0):
        super().__init__(beta)
        self.sign, self.dim, self.keepdim = sign, dim, keepdim

    def forward(self, *inputs: Tensor) -> Tensor:
        """One tensor, or two that broadcast -> as `torch.amax`, `torch.maximum`."""
        scale = self.sign * self.beta
        return torch.logsumexp(self._candidates(inputs) * scale, self.dim, self.keepdim) / scale

    def spread(self, *inputs: Tensor) -> float:
        """Root mean square, over the places, of the candidates' standard deviation."""
        return float(self._candidates(inputs).double().var(self.dim, correction=0).mean().sqrt())

    def _candidates(self, inputs):
        return inputs[0] if len(inputs) == 1 else torch.stack(torch.broadcast_tensors(*inputs), -1)


class _LogSumExpPool(_Soft):
    """Pooling by log-sum-exp: (1/beta) log Σ exp(beta x) over each window.

    Takes the place of torch's max pooling of as many dimensions, with the same shapes. It exceeds the maximum by at
    most log(k)/beta, k places in the window, and tends to it as beta grows. What is beyond the border counts as minus
    infinity. One dimension is pooled after the other, so that memory grows with the sum of a window's sides and not
    with their product.

    Parameters
    ----------
    kernel_size, stride, padding, dilation, ceil_mode
        As torch's max pooling takes them.
    beta
        Sharpness, positive, in 1 over the unit of x: a number, or a tensor that broadcasts to x.

    Raises
    ------
    ValueError
        For a beta that is not positive; when it is called, for padding over half of the window and for a map that is
        smaller than the window.
    """

    dimensions: int

    def __init__(self, kernel_size, beta, stride=None, padding=0, dilation=1, ceil_mode=False):
        super().__init__(beta)
        self.kernel_size, self.padding, self.dilation = (self._each(part) for part in (kernel_size, padding, dilation))
        self.stride = self.kernel_size if stride in (None, (), []) else self._each(stride)
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, {super().extra_repr()}, stride={self.stride}, "
                f"padding={self.padding}, dilation={self.dilation}, ceil_mode={self.ceil_mode}")

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *sides) or (C, *sides) -> as torch's max pooling gives it."""
        return self._reduced(x * self.beta, -math.inf, torch.logsumexp) / self.beta

    def spread(self, x: Tensor) -> float:
        """Root mean square, over all windows, of the standard deviation within the window."""
        # From 32 inputs spread over all: one number is asked for.
        x = x[::-(-len(x) // 32)].double()
        x = x - x.mean()
        count, total, square = (self._reduced(part, 0.0, torch.sum) for part in (torch.ones_like(x[:1]), x, x * x))
        return float((square / count - (total / count) ** 2).clamp(min=0).mean().sqrt())

    def _each(self, value) -> tuple[int, ...]:
        return (value,) * self.dimensions if isinstance(value, int) else tuple(value)

    def _reduced(self, x, beyond: float, over):
        """Each window of x reduced by ``over``, axis by axis; ``beyond`` stands for what is outside."""
        for axis in range(-self.dimensions, 0):
            side = x.shape[axis]
            table = self._places(axis, side)
            if bool((table < 0).any()):
                border = list(x.shape)
                border[axis] = 1
                x = torch.cat([x, x.new_full(border, beyond)], axis)
                table = table % (side + 1)
            x = over(x.index_select(axis, table.flatten().to(x.device)).unflatten(axis, table.shape), axis)
        return x

    def _places(self, axis: int, side: int) -> Tensor:
        """``(windows, k)``: the places in each window along one axis, -1 beyond the border."""
        settings = (each[axis] for each in (self.kernel_size, self.stride, self.padding, self.dilation))
        return windows((side,), *settings, self.ceil_mode)[0]


class LogSumExpPool1d(_LogSumExpPool):
    __doc__ = _LogSumExpPool.__doc__
    dimensions = 1


class LogSumExpPool2d(_LogSumExpPool):
    __doc__ = _LogSumExpPool.__doc__
    dimensions = 2


class LogSumExpPool3d(_LogSumExpPool):
    __doc__ = _LogSumExpPool.__doc__
    dimensions = 3


class _AdaptivePool(_LogSumExpPool):
    """Log-sum-exp in the windows of torch's adaptive max pooling."""

    def __init__(self, dimensions: int, output_size):
        self.dimensions = dimensions
        super().__init__(1, 1.0)
        self.output_size = (output_size,) * dimensions if isinstance(output_size, int | None) else tuple(output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, {_Soft.extra_repr(self)}"

    def _places(self, axis, side):
        return adaptive_windows((side,), (self.output_size[axis] or side,))


_POOLS = {"max_pool1d": LogSumExpPool1d, "max_pool2d": LogSumExpPool2d, "max_pool3d": LogSumExpPool3d}
_POOL_ARGUMENTS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")


def softened(op: str, seen, args: tuple, kwargs: dict) -> nn.Module:
    """The smooth unit for one call, of sharpness 1.

    Parameters
    ----------
    op
        The operation, as `smpcore.units.canonical` names it.
    seen
        What `smpcore.units.describe` says of the call.
    args, kwargs
        As the model gave them.

    Returns
    -------
    Module
        ``soft(*seen.inputs)`` is the call's output, made smooth; ``soft.spread(*seen.inputs)`` is the standard
        deviation that its sharpness is measured in.

    Raises
    ------
    ValueError
        Where the unit's value jumps, or it bends in a way that has no smooth counterpart here.
    """
    if seen.jumps:
        raise ValueError("its value jumps, which no smooth unit follows")
    if isinstance(seen, Hinges):
        if not seen.straight and seen.kind not in ("elu", "selu", "hardswish"):
            raise ValueError("it bends between its thresholds, and has no smooth counterpart here")
        return SoftUnit(seen)
    settings = arguments(op, args, kwargs)
    if op in _POOLS:
        return _POOLS[op](beta=1.0, **{key: settings[key] for key in _POOL_ARGUMENTS if key in settings})
    if op.startswith("adaptive"):
        return _AdaptivePool(int(op[-2]), settings["output_size"])
    if len(seen.inputs) == 2:
        return SoftMaximum(seen.sign)
    dim, every = settings.get("dim"), tuple(range(seen.inputs[0].dim()))
    return SoftMaximum(seen.sign, every if dim in (None, (), []) else (dim,) if isinstance(dim, int) else tuple(dim),
                       settings.get("keepdim", False))
