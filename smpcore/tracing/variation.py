"""Total variation of a piecewise-linear model over a region of any dimension, from random lines through it."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from smpcore.arguments import POSITIVE, TENSOR, Kind, check, checked, whole
from smpcore.tracing.trace import Tracer

__all__ = ["Ball", "Box", "TotalVariation", "total_variation"]


@dataclass(frozen=True)
class Ball:
    """All inputs within ``radius`` of ``center (*input_shape)``."""

    center: Tensor
    radius: float

    def __post_init__(self):
        check(vars(self), {"center": TENSOR, "radius": POSITIVE})

    def chord(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Where a random line enters and leaves: lines of every direction and every offset are equally likely."""
        direction = normalize(torch.randn(self.center.numel(), dtype=torch.float64, generator=generator), dim=0)
        offset, height = _in_disk(direction, generator)
        half = height * direction
        return tuple(self.center.double() + self.radius * end.view(self.center.shape).to(self.center.device)
                     for end in (offset - half, offset + half))

    @property
    def log_volume(self) -> float:
        size = self.center.numel()
        return size * math.log(self.radius) + size / 2 * math.log(math.pi) - math.lgamma(size / 2 + 1)

    @property
    def shadow(self) -> float:
        """The mean over directions of the region's projection, (d − 1)-dimensional, as a part of its volume."""
        return _mean_cosine(self.center.numel()) * self.center.numel() / (2 * self.radius)


@dataclass(frozen=True)
class Box:
    """All inputs between ``low`` and ``high``, both ``(*input_shape)``, number by number."""

    low: Tensor
    high: Tensor

    def __post_init__(self):
        check(vars(self), {"low": TENSOR, "high": TENSOR})
        if self.low.shape != self.high.shape or not bool((self.low < self.high).all()):
            raise ValueError("a box needs low and high of one shape, low below high in every number: where an input is "
                             "to stand still, let the model take the others alone")

    def chord(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Where a random line enters and leaves: lines of every direction and every offset are equally likely."""
        sides = (self.high - self.low).flatten().double().cpu()
        # A face of the box in proportion to its size, a point on it, and a direction by the cosine with its normal.
        face = int(torch.multinomial(1 / sides, 1, generator=generator))
        normal = torch.zeros_like(sides).index_fill(0, torch.tensor([face]), 1.0)
        across, height = _in_disk(normal, generator)
        direction = across + height * normal
        point = torch.rand(len(sides), dtype=torch.float64, generator=generator) * sides * (1 - normal)
        leaves = torch.where(direction > 0, (sides - point) / direction, -point / direction)
        ends = point, point + leaves[direction != 0].min() * direction
        if int(torch.randint(2, (1,), generator=generator)):  # in by the opposite face as often
            ends = sides - ends[0], sides - ends[1]
        return tuple(self.low.double() + end.view(self.low.shape).to(self.low.device) for end in ends)

    @property
    def log_volume(self) -> float:
        return float((self.high - self.low).double().log().sum())

    @property
    def shadow(self) -> float:
        """The mean over directions of the region's projection, (d − 1)-dimensional, as a part of its volume."""
        return _mean_cosine(self.low.numel()) * float((1 / (self.high - self.low).double()).sum())


def _in_disk(normal: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A point of the unit disk at right angles to a unit vector, and the unit sphere's height above it."""
    size = len(normal)
    drawn = torch.randn(size, dtype=torch.float64, generator=generator)
    reach = torch.rand(1, dtype=torch.float64, generator=generator) ** (1 / max(1, size - 1))
    point = reach * normalize(drawn - (drawn @ normal) * normal, dim=0) if size > 1 else 0 * normal
    return point, (1 - point.square().sum()).clamp_min(0).sqrt()


def _mean_cosine(size: int) -> float:
    """E|u₁| of a random direction u."""
    return math.exp(math.lgamma(size / 2) - math.lgamma((size + 1) / 2)) / math.sqrt(math.pi)


@dataclass(frozen=True)
class TotalVariation:
    """An estimate: the ``value``, its standard error ``se``, and its part from each of the ``layers`` by name."""

    value: float
    se: float
    layers: dict[str, float]


@checked(region=Kind((Ball, Box), ": it must be a tracing.Ball(center, radius) or tracing.Box(low, high)"),
         lines=whole(2), seed=whole(0))
def total_variation(model: Callable, region: Ball | Box, *, lines: int = 1000, seed: int = 0, output: int = 0,
                    per_volume: bool = False, dtype: torch.dtype = torch.float64) -> TotalVariation:
    """How rough a piecewise-linear output is over a region: the sum over its creases of |jump of the gradient| · size.

    Parameters
    ----------
    model, dtype
        As for `trace_line`.
    region
        A `Ball` or a `Box`, in any number of dimensions d.
    lines
        How many random lines are traced.
    seed
        Draws the lines.
    output
        An index into the outputs, flattened.
    per_volume
        Whether to divide by the region's volume, which in many dimensions no floating number can hold.

    Returns
    -------
    TotalVariation
        In output units times (input units)^(d − 2); per volume, output units per (input unit)².

    Raises
    ------
    TypeError, ValueError
        As for `trace_line`; for a line whose trace is not certified (the stretch and the operation), and a volume out
        of a floating number's range.

    Notes
    -----
    The Hessian-Schatten total variation (S. Aziznejad, J. Campos, M. Unser, "Measuring Complexity of Learning Schemes
    Using Hessian-Schatten Total Variation", SIAM J. Math. Data Sci. 2023), whose order does not matter where a
    gradient jumps along one normal. By Crofton's formula: a line at the angle θ to a crease's normal meets it with
    the chance |cos θ| and sees |cos θ| of its jump, and E cos² θ = 1/d; so it is d times the mean over directions of
    SMP, per unit of distance, integrated over the lines of each direction. Every kink is counted once, whatever the
    dimension; the estimate's only error is that of the draw of lines.
    """
    generator = torch.Generator().manual_seed(seed)
    tracer, smp, layers = Tracer(model, output, dtype), [], Counter()
    for number in range(lines):
        ends = region.chord(generator)
        trace = tracer.trace(*ends, float((ends[1] - ends[0]).norm()))
        trace.refuse_gaps(f"line {number} has kinks that are not known")
        smp.append(float(trace.smp[0]))
        for name, jump in zip(trace.layers, trace.jumps[:, 0].abs().tolist(), strict=True):
            layers[name] += jump
    size = ends[0].numel() * region.shadow
    if not per_volume:
        if abs(region.log_volume) > 700:
            raise ValueError(f"the region's volume, e^{region.log_volume:.0f}, is out of a floating number's range: "
                             "ask for per_volume=True")
        size *= math.exp(region.log_volume)
    found = torch.tensor(smp, dtype=torch.float64) * size
    return TotalVariation(float(found.mean()), float(found.std()) / math.sqrt(lines),
                          {name: size * jumps / lines for name, jumps in layers.items()})
