"""Second moments of a layer's maps along a path, and what linear layers do to them.

Given the path, and over draws of the weights, the channels of a layer are independent copies of one another.
So one set of second moments, between positions of the map, stands for all channels.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from smpcore.propagation.closed_forms.unit_rule import crossings

__all__ = ["Field", "adjoint", "conv_map", "crossing_rate", "diagonal", "linear_positions", "pad_map",
           "scaled", "shift", "shifted", "two_slope_field"]


@dataclass(frozen=True)
class Field:
    """Second moments of one channel's values a and slopes a' at R replicates, P times and N positions.

    Attributes
    ----------
    value, slope, cross
        ``(R, P, N)``, E[a_p²], E[a'_p²], E[a'_p a_p], not centred; ``(R, P, N, N)``, E[a_p a_q], E[a'_p a'_q],
        E[a'_p a_q], where a later layer needs all pairs of positions. R is 1 until something is simulated.
    channels
        How many channels there are.
    sides
        Of the map; their product is N. ``()`` for features.
    flat
        Whether the map has been flattened into features.
    gaussian
        Whether it is Gaussian of mean 0 over draws of the weights.
    draw
        ``draw() -> values, slopes``, each ``(R, P, M, N)``: M channels drawn.
    across
        ``across(offset)``: the three moments ``(R, P, N)`` of each position p with p + offset, for a map of which only
        p = q is carried; 0 beyond the border. None where it is not known.
    core, rest
        Of a sum: its Gaussian part, and draws of what is added to it.
    before
        Of a two-slope unit's output: the Gaussian field before the unit.
    roots
        The weight layers whose draws it depends on directly: fields without a common one are uncorrelated.
    given
        Behind a depthwise convolution: the three moments given each draw of what it reads, one row ``P M`` for each.
        Channels are Gaussian only given these.
    """

    value: Tensor
    slope: Tensor
    cross: Tensor
    channels: int
    sides: tuple[int, ...]
    flat: bool = False
    gaussian: bool = False
    draw: Callable | None = None
    across: Callable | None = None
    core: "Field | None" = None
    before: "Field | None" = None
    rest: Callable | None = None
    roots: frozenset = frozenset()
    given: "Field | None" = None

    @property
    def pairs(self) -> bool:
        return self.value.dim() == 4

    @property
    def positions(self) -> int:
        return self.value.shape[-1]

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.value, self.slope, self.cross

    def map(self, function, across=None, **changes) -> "Field":
        """The same linear function of all three moments; ``across(offset)`` is the offset before it."""
        def maps(moments):
            return tuple(function(moment) for moment in moments)

        value, slope, cross = maps(self.moments())
        known = None if across is None or self.across is None else lambda offset: maps(self.across(across(offset)))
        return replace(self, value=value, slope=slope, cross=cross, across=known, **changes)

    def own(self) -> "Field":
        """Without the pairs of different positions."""
        if not self.pairs:
            return self
        done = self.map(diagonal, core=None if self.core is None else self.core.own(),
                        before=None if self.before is None else self.before.own())

        def across(offset):
            there = shifted_places(self.sides, offset).to(self.value.device)
            inside, at = there >= 0, torch.arange(len(there), device=self.value.device)
            return tuple(torch.where(inside, moment[..., at, there.clamp(min=0)], 0.0) for moment in self.moments())

        return replace(done, across=across)

    def within(self, where: Tensor) -> list[Tensor]:
        """The three moments ``(R, P, W, k, k)`` of the positions in each window ``where (W, k)``, -1 for none."""
        index = where.clamp(min=0)
        if self.pairs:
            return [moment[:, :, index[:, :, None], index[:, None, :]] for moment in self.moments()]
        axes = torch.unravel_index(index, self.sides)
        apart = torch.stack([axis[:, None, :] - axis[:, :, None] for axis in axes], -1)
        there = (where[:, :, None] >= 0) & (where[:, None, :] >= 0)
        found = [self.value.new_zeros(*self.value.shape[:2], *there.shape) for _ in range(3)]
        first = index[:, :, None].expand(there.shape)
        for offset in apart[there].unique(dim=0):
            here = there & (apart == offset).all(-1)
            for whole, part in zip(found, self.across(tuple(offset.tolist())), strict=True):
                whole[:, :, here] = part[..., first[here]]
        return found


def shifted_places(sides: tuple[int, ...], offset: tuple[int, ...]) -> Tensor:
    """``(N,)``: where p + offset is, -1 beyond the border."""
    places = torch.arange(torch.Size(sides).numel()).reshape(sides)
    for axis, (step, side) in enumerate(zip(offset, sides, strict=True)):
        at = torch.arange(side) + step
        places = places.index_select(axis, at.clamp(0, side - 1))
        beyond = ((at < 0) | (at >= side)).reshape(-1, *[1] * (len(sides) - axis - 1))
        places = torch.where(beyond, -1, places)
    return places.flatten()


def shifted(part: Tensor, sides: tuple[int, ...], offset: tuple[int, ...]) -> Tensor:
    """``(..., N)`` at p + offset, 0 beyond the border."""
    there = shifted_places(sides, offset).to(part.device)
    return torch.where(there >= 0, part[..., there.clamp(min=0)], 0.0)


def diagonal(moment: Tensor) -> Tensor:
    """``(R, P, N)``: the moments at p = q."""
    return moment if moment.dim() == 3 else torch.diagonal(moment, dim1=-2, dim2=-1)


def scaled(field: Field, factor: float, offset: float = 0.0, **changes) -> Field:
    """All moments times a factor, and a constant added to the values'."""
    done = field.map(lambda moment: factor * moment, lambda offset: offset, **changes)
    return shift(done, offset)


def shift(field: Field, offset: float) -> Field:
    """A constant, drawn for each channel, of this mean square added to the values."""
    if not offset:
        return field
    known = field.across

    def across(at):
        value, *others = known(at)
        return value + offset, *others

    return replace(field, value=field.value + offset, across=None if known is None else across)


def conv_map(kernel: tuple[int, ...], sides: tuple[int, ...], stride, dilation) -> tuple[Callable, tuple[int, ...]]:
    """Sum over a convolution's taps, as a linear function of second moments, and the sides behind it.

    Different taps have independent weights, so one tap moves both positions alike: K'(p, q) = Σ_δ K(p + δ, q + δ).
    With ``weights`` ``(..., taps)`` it is the convolution itself, of maps ``(..., N)``.
    """
    count = len(sides)
    outer = tuple((side - step * (size - 1) - 1) // pace + 1
                  for side, size, pace, step in zip(sides, kernel, stride, dilation, strict=True))

    def apply(moment: Tensor, weights: Tensor | None = None) -> Tensor:
        copies = moment.dim() - 2
        part, total = moment.reshape(*moment.shape[:2], *sides * copies), None
        for n, tap in enumerate(itertools.product(*map(range, kernel))):
            where = tuple(slice(place * step, place * step + pace * (size - 1) + 1, pace)
                          for place, step, pace, size in zip(tap, dilation, stride, outer, strict=True))
            view = part[(slice(None), slice(None), *where * copies)]
            if weights is not None:
                view = view * weights[..., n].reshape(*weights.shape[:2], *[1] * count)
            total = view.clone() if total is None else total.add_(view) if not view.requires_grad else total + view
        return total.reshape(*moment.shape[:2], *[math.prod(outer)] * copies)

    return apply, outer


def pad_map(sides: tuple[int, ...], pads: list[tuple[int, int]], mode: str = "constant"):
    """Padding, as a linear function of second moments or draws, and the sides behind it.

    ``pads`` are before and after each side, the first first; ``mode`` is that of `torch.nn.functional.pad`.
    """
    order = []
    for side, around in zip(sides, pads, strict=True):
        index = torch.arange(side, dtype=torch.float64)[None, None]
        if any(around):
            index = F.pad(index, around, mode=mode)
        order.append(index[0, 0].long())
    outer = tuple(len(index) for index in order)

    def apply(moment: Tensor, lead: int = 2) -> Tensor:
        copies = moment.dim() - lead
        part = moment.reshape(*moment.shape[:lead], *sides * copies)
        if mode == "constant":
            part = F.pad(part, [size for around in pads[::-1] for size in around] * copies)
        else:
            for axis in range(len(sides) * copies):
                part = part.index_select(lead + axis, order[axis % len(sides)].to(part.device))
        return part.reshape(*moment.shape[:lead], *[math.prod(outer)] * copies)

    return apply, outer


def linear_positions(matrix: Tensor) -> Callable:
    """Average pooling, upsampling: y = A x at every channel, K' = A K Aᵀ; independent positions by A²; draws by A."""
    squared = matrix**2

    def apply(moment: Tensor, lead: int = 2) -> Tensor:
        if lead > 2:
            return moment @ matrix.mT
        return moment @ squared.mT if moment.dim() == 3 else matrix @ moment @ matrix.mT

    return apply


def adjoint(function: Callable, before: int, behind: Tensor, draws: int | None = None) -> Tensor:
    """The transpose of a linear function of moments, applied to the mean squared gains behind it; or of draws."""
    shape = (*behind.shape[:2], *([before] * (behind.dim() - 2) if draws is None else (draws, before)))
    start = torch.zeros(shape, dtype=behind.dtype, device=behind.device, requires_grad=True)
    with torch.enable_grad():
        (result,) = torch.autograd.grad(function(start), start, behind)
    return result


# 1 − ρ² below this counts as the same signal.
_SAME = 1e-10


def two_slope_field(field: Field, mean_below: float, square_step: float) -> Field:
    """The moments behind y = x above 0, q x below, for a Gaussian field of mean 0.

    A two-slope unit is q x + (1 − q) ReLU(x); with E[x_p ReLU(x_q)] half of E[x_p x_q], every moment is
    q·(before) + (1 − q)²·(ReLU's). ReLU's: the arc-cosine kernel (Y. Cho, L. Saul, NIPS 2009) for values, and its
    derivatives along the path for slopes (our own derivation, in notebook 06, "How it is computed").

    Parameters
    ----------
    mean_below, square_step
        E[q] and E[(1 − q)²] over channels.
    """
    value, slope, cross = field.moments()
    if field.pairs:
        ends = [end for part in (value, cross) for end in (diagonal(part)[..., :, None], diagonal(part)[..., None, :])]
        relu = _pair_moments(value, slope, cross, cross.mT, *ends)
    else:
        relu = (value / 2, slope / 2, cross / 2)

    def through(before, behind):
        return tuple(mean_below * x + square_step * y for x, y in zip(before, behind, strict=True))

    def across(offset):
        value, slope, cross = found = known(offset)
        if not any(offset):
            return through(found, [part / 2 for part in found])
        back = shifted(known(tuple(-step for step in offset))[2], field.sides, offset)
        ends = [part for one in (field.value, field.cross) for part in (one, shifted(one, field.sides, offset))]
        return through(found, _pair_moments(value, slope, cross, back, *ends))

    known = field.across
    value, slope, cross = through((value, slope, cross), relu)
    return replace(field, value=value, slope=slope, cross=cross, gaussian=False, draw=None, given=None,
                   across=None if known is None else across)


def _pair_moments(value, slope, towards, back, a, b, first, second) -> tuple[Tensor, Tensor, Tensor]:
    """Behind a ReLU, of two positions p and q: E[a_p a_q], E[a'_p a'_q], X_pq = E[a'_p a_q] before it, X_qp, both
    variances, X_pp, X_qq."""
    still_a, still_b = a <= 0, b <= 0
    safe_a, safe_b = torch.where(still_a, 1.0, a), torch.where(still_b, 1.0, b)
    geometric = safe_a.sqrt() * safe_b.sqrt()
    cosine = (value / geometric).clamp(-1, 1)
    sine2 = 1 - cosine**2
    # At p = q, and where two positions always agree, the second slope term is 0.
    apart = sine2 > _SAME
    sine = torch.where(apart, sine2, 0.0).sqrt()
    share = (math.pi - torch.acos(cosine)) / (2 * math.pi)
    values = geometric * (sine / (2 * math.pi) + share * cosine)
    bend = towards * back - value / safe_a * first * back - value / safe_b * second * towards + first * second
    determinant = torch.where(apart, geometric * sine, 1.0)
    slopes = slope * share + torch.where(apart, bend / (2 * math.pi * determinant), 0.0)
    crosses = towards * share + geometric * sine * first / (2 * math.pi * safe_a)
    dead = still_a | still_b
    return tuple(torch.where(dead, 0.0, moment) for moment in (values, slopes, crosses))


def crossing_rate(field: Field, threshold: float = 0.0, rest: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Crossings of a threshold, per unit of t, ``(2, R, P, N)``: Σ|slope| over them, and their number.

    Rice's formula: f_a(u) E[a'² | a = u] and f_a(u) E[|a'| | a = u]. On a path that is not stationary the slope is
    conditioned on the value: mean X u/K, variance S − X²/K.

    Parameters
    ----------
    field
        Gaussian, of mean 0.
    threshold
        u.
    rest
        Values and slopes ``(R, P, M, N)`` of what is added to the Gaussian, drawn: the formula holds given each
        draw, and the mean over draws is taken.
    """
    value, slope, cross = (diagonal(moment) for moment in field.moments())
    moves = value > 0
    value = torch.where(moves, value, 1.0)
    if rest is None:
        rate = crossings(torch.as_tensor(threshold, dtype=value.dtype), value, slope, cross)
        return torch.where(moves, torch.stack(rate), 0.0)
    rate = crossings(threshold - rest[0], *(part[:, :, None] for part in (value, slope, cross)), rest[1])
    return torch.where(moves, torch.stack(rate).mean(3), 0.0)
