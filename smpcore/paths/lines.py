"""Straight and round paths in the space of inputs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from smpcore.paths.checks import generator, is_number, is_whole
from smpcore.paths.times import path_times, placed

__all__ = ["CirclePath", "LinePath", "circle", "circle_through", "line"]

# The most values of an input: a circle with more would take over 4 GiB to draw.
_MOST = 1 << 28


@dataclass(frozen=True)
class LinePath:
    """x(t) = start + t/length (end − start); see `line`."""

    start: torch.Tensor
    end: torch.Tensor
    length: float

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        start, end = placed(self.start, t), placed(self.end, t)
        return start + _column(path_times(t) / self.length, start) * (end - start)

    def slope(self, t: torch.Tensor) -> torch.Tensor:
        """dx/dt, ``(P, *input_shape)``: the same as forward-mode AD gives, in less time."""
        start, end = placed(self.start, t), placed(self.end, t)
        return _column(torch.ones_like(path_times(t)) / self.length, start) * (end - start)


@dataclass(frozen=True)
class CirclePath:
    """x(t) = centre + cosine · cos t + sine · sin t, once round in 2π; see `circle` and `circle_through`."""

    centre: torch.Tensor
    cosine: torch.Tensor
    sine: torch.Tensor

    def __call__(self, t: torch.Tensor) -> torch.Tensor:
        centre, cosine, sine = (placed(part, t) for part in (self.centre, self.cosine, self.sine))
        t = path_times(t)
        return centre + _column(torch.cos(t), centre) * cosine + _column(torch.sin(t), centre) * sine

    def slope(self, t: torch.Tensor) -> torch.Tensor:
        """dx/dt, ``(P, *input_shape)``: the same as forward-mode AD gives, in less time."""
        cosine, sine = (placed(part, path_times(t)) for part in (self.cosine, self.sine))
        return _column(torch.cos(t), sine) * sine - _column(torch.sin(t), sine) * cosine


def line(start: torch.Tensor, end: torch.Tensor, length: float = 1.0) -> LinePath:
    """The straight line from one input to another, t in [0, length].

    Parameters
    ----------
    start, end
        Inputs of one shape, without a batch dimension.
    length
        The time it takes; positive.

    Raises
    ------
    ValueError
        For two shapes that differ, values that are not finite, a length that is not positive.
    """
    start, end = _inputs({"start": start, "end": end})
    if not is_number(length, above=0):
        raise ValueError(f"length = {length!r}: a line takes a positive, finite time")
    return LinePath(start, end, float(length))


def circle(shape: int | tuple[int, ...], *, radius: float | None = None, seed: int = 0) -> CirclePath:
    """A circle about the origin in a random plane of the space of inputs, t in [0, 2π].

    With the default radius √d, d the number of input values, each value has mean square 1 over planes, and so
    has its slope: the path on which predictions for whole networks are simplest.

    Parameters
    ----------
    shape
        The shape of one input, or the number of its values.
    radius
        Positive; √d where None.
    seed
        Draws the plane (on the CPU: the same circle on every device).

    Raises
    ------
    ValueError
        For a shape of fewer than two or more than 2²⁸ input values, or a radius that is not positive.
    """
    sizes = (shape,) if not isinstance(shape, Sequence) else tuple(shape)
    if not all(is_whole(size, 1) for size in sizes) or not 2 <= math.prod(sizes) <= _MOST:
        raise ValueError(f"shape = {shape!r}: a circle needs at least two input values and at most {_MOST:,}: give "
                         "their number, or the shape of an input")
    shape, count = sizes, math.prod(sizes)
    radius = math.sqrt(count) if radius is None else radius
    if not is_number(radius, above=0):
        raise ValueError(f"radius = {radius!r}: it must be positive and finite")
    draw = torch.randn(count, 2, generator=generator(seed), dtype=torch.float64)
    plane = torch.linalg.qr(draw).Q * radius
    return CirclePath(torch.zeros(shape, dtype=torch.float64), plane[:, 0].reshape(shape).contiguous(),
                      plane[:, 1].reshape(shape).contiguous())


def circle_through(first: torch.Tensor, second: torch.Tensor, third: torch.Tensor) -> CirclePath:
    """The circle through three inputs, t in [0, 2π]: at the first at t = 0, then the second, then the third.

    Raises
    ------
    ValueError
        For shapes that differ, values that are not finite, three inputs on one line.
    """
    first, second, third = _inputs({"first": first, "second": second, "third": third})
    to_second, to_third = second - first, third - first
    # The centre is first + α to_second + β to_third, equally far from all three: two linear equations.
    unit = torch.maximum(to_second.abs().max(), to_third.abs().max())  # so that squares stay within float64
    to_second, to_third = to_second / unit, to_third / unit
    sides = torch.stack([to_second, to_third]).flatten(1)
    gram = sides @ sides.T
    if not torch.linalg.det(gram) > 1e-12 * gram[0, 0] * gram[1, 1]:
        raise ValueError("the three inputs lie on one line: no circle passes through them; use line()")
    alpha, beta = torch.linalg.solve(gram, gram.diagonal() / 2)
    centre = alpha * to_second + beta * to_third
    cosine, radius = -centre, centre.norm()
    # Perpendicular to the first radius within the plane, turned so that the second comes before the third.
    across = to_second - (to_second * cosine).sum() / radius**2 * cosine
    across = across / across.norm() * radius
    angles = [math.atan2(float(((x - centre) * across).sum()), float(((x - centre) * cosine).sum()))
              % (2 * math.pi) for x in (to_second, to_third)]
    return CirclePath(first + unit * centre, unit * cosine, unit * (across if angles[0] < angles[1] else -across))


def _column(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(P,) as (P, 1, …, 1), to multiply an input of the shape of ``like``."""
    return values.reshape(-1, *(1 for _ in like.shape))


def _inputs(named: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The inputs in float64, checked to be real, finite and of one shape."""
    found = [_input(name, value) for name, value in named.items()]
    shapes = {tuple(value.shape) for value in found}
    if len(shapes) > 1:
        listed = ", ".join(f"{name} {tuple(value.shape)}" for name, value in zip(named, found, strict=True))
        raise ValueError(f"the inputs differ in shape: {listed}")
    for name, value in zip(named, found, strict=True):
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} holds NaN or infinity")
    return [value.to(torch.float64) for value in found]


def _input(name: str, value: object) -> torch.Tensor:
    try:
        found = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} has to be an input, a tensor of numbers, not {type(value).__name__}") from error
    if found.is_complex():
        raise TypeError(f"{name} holds complex numbers: an input is real")
    if found.layout != torch.strided or found.device.type == "meta":
        raise TypeError(f"{name} is sparse, or without numbers on device 'meta': an input is a dense tensor")
    return found
