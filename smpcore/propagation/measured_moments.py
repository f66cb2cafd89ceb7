"""A trained network predicted from what each of its units does along another path of the same family.

The model runs along the reference path only. What is read from it, in short overlapping stretches: of each unit's
values and slopes the means and covariances, where a max pooling stands those of its windows, and each unit's mean
|gain|. Switches are not looked at. On the path that is predicted nothing runs; what is left between the two is the
Gaussian law, and how the paths differ.
"""

import copy
import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from smpcore.propagation.closed_forms.gaussian_max import leads_at, leads_at_most, tie_rates, ties, with_zero
from smpcore.propagation.closed_forms.orthant import normal_cdf
from smpcore.propagation.closed_forms.unit_rule import hinge_rates, refuse_jumps, two_slopes
from smpcore.propagation.layer_graph import Calls, Step, elementwise_modules
from smpcore.propagation.path_nodes import inputs
from smpcore.propagation.random_weights.max_pool import check_size
from smpcore.units import windows

__all__ = ["Moments", "Recorder", "predict_from_reference"]

# Numbers kept for the calls of one part: 64 MB.
_NUMBERS = 1 << 23


class Moments(NamedTuple):
    """Of values and slopes of each unit over time, and of its gains.

    Attributes
    ----------
    whole
        How long.
    means
        ``(2, …)`` of values and of slopes.
    squares
        ``(3, …)`` integrals over time of deviations from these: of values squared, slopes squared, and their product.
    gains
        ``(m, …)`` integral of |gain|.
    """

    whole: float
    means: Tensor
    squares: Tensor
    gains: Tensor

    @classmethod
    def of(cls, weights: Tensor, before: tuple[Tensor, Tensor], gains: Tensor) -> "Moments":
        """``weights (P,)`` of the times, ``before`` values and slopes ``(P, …)``, ``gains (m, P, …)``."""
        both = torch.stack(before)
        weights = weights.to(both)
        whole = float(weights.sum())
        means = torch.einsum("p,bp...->b...", weights, both) / whole
        squares = torch.einsum("p,bp...->b...", weights, _products(both - means[:, None]))
        return cls(whole, means, squares, torch.einsum("p,mp...->m...", weights, gains.abs()))

    def join(self, other: "Moments") -> "Moments":
        """Of both parts (T. Chan, G. Golub, R. LeVeque, 1979): no large numbers are taken from one another."""
        whole, shift = self.whole + other.whole, other.means - self.means
        return Moments(whole, self.means + shift * (other.whole / whole),
                       self.squares + other.squares + _products(shift) * (self.whole * other.whole / whole),
                       self.gains + other.gains)

    def law(self) -> tuple[Tensor, ...]:
        """Mean, variance, slope variance, covariance of value and slope, mean slope: as `hinge_rates` takes them."""
        var, slope_var, cross = self.squares / self.whole
        return self.means[0], var, slope_var, cross, self.means[1]

    @property
    def size(self) -> Tensor:
        """``(m, …)``: mean |gain|."""
        return self.gains / self.whole


def _products(both: Tensor) -> Tensor:
    """``(2, …)`` -> ``(3, …)``: both squared, and one times the other."""
    return torch.stack([both[0] ** 2, both[1] ** 2, both[0] * both[1]])


class Recorder:
    """Runs a model along a path, part by part, and tells what passes these calls."""

    def __init__(self, model: nn.Module, wanted: set[str], path):
        plain = copy.deepcopy(model).double().requires_grad_(False)
        self.calls = Calls(plain, elementwise_modules(plain), self._made)
        self.wanted, self.path, self.size = wanted, path, 1

    def parts(self, times: Tensor, gains: bool = True):
        """``slice, before, gains`` of each part: {call: (values, slopes)} that enter, {call: ``(m, P, …)``} of its
        output."""
        start = 0
        while start < len(times):
            here = slice(start, min(start + self.size, len(times)))
            values, slopes = inputs(self.path, times[here], "reference")
            self.before, self.after = {}, {}
            with forward_ad.dual_level(), torch.enable_grad():
                try:
                    found = self.calls.run(forward_ad.make_dual(values.requires_grad_(gains), slopes))
                except RuntimeError as error:
                    if "forward AD" in str(error):
                        raise
                    raise ValueError(f"the reference's inputs of shape {tuple(values.shape[1:])} do not fit the model: "
                                     f"{str(error).splitlines()[0]}") from error
                outputs = forward_ad.unpack_dual(found).primal.flatten(1)
            yield here, self.before, self._gains(outputs) if gains else {}
            kept = sum(after[0].numel() for after in self.after.values()) * (3 + outputs.shape[1])
            start, self.size = here.stop, max(1, _NUMBERS // max(1, kept))

    def passes(self, times: Tensor, chosen: dict) -> dict:
        """Values and slopes ``(P, W, k)`` of windows, under the keys of ``chosen``: the call whose inputs they are of,
        their channels ``(W,)`` and positions ``(W, k)``."""
        found = {number: ([], []) for number in chosen}
        for _, before, _ in self.parts(times, gains=False) if chosen else ():
            for number, (call, channel, members) in chosen.items():
                for rows, part in zip(found[number], before[call], strict=True):
                    rows.append(part.flatten(2)[:, channel[:, None], members])
        return {number: tuple(torch.cat(rows) for rows in both) for number, both in found.items()}

    def _gains(self, outputs: Tensor) -> dict[str, Tensor]:
        kept = list(self.after.values())
        rows = [torch.autograd.grad(outputs[:, m].sum(), kept, retain_graph=m + 1 < outputs.shape[1], allow_unused=True)
                for m in range(outputs.shape[1])]
        return {call: torch.stack([torch.zeros_like(kept[n]) if row[n] is None else row[n] for row in rows])
                for n, call in enumerate(self.after)}

    def _made(self, call, path, word, given, args, kwargs, run):
        if call not in self.wanted:
            return run()
        primal, tangent = forward_ad.unpack_dual(given[0][0])
        self.before[call] = primal.detach().clone(), torch.zeros_like(primal) if tangent is None else \
            tangent.detach().clone()
        primal, tangent = forward_ad.unpack_dual(run())
        self.after[call] = primal.clone()
        return forward_ad.make_dual(self.after[call].view_as(primal), tangent)


# Of each pooling: windows that are looked at in one stretch, pairs of their signals that are integrated in all
# stretches together and in each at least, and Sobol points in each of eight scrambles.
_WINDOWS, _PAIRS, _FEWEST, _POINTS = 2048, 6400, 100, 8
# A stretch is two neighbouring pieces of four intervals.
_INTERVALS = 4


def pieces(times: Tensor) -> list[Tensor]:
    """The times in pieces of at least four intervals, which share their ends."""
    count = max(1, (len(times) - 1) // _INTERVALS)
    ends = torch.linspace(0, len(times) - 1, count + 1).round().long().tolist()
    return [times[first:last + 1] for first, last in itertools.pairwise(ends)]


def predict_from_reference(model: nn.Module, graph: list[Step], reference, times: Tensor) -> list[tuple]:
    """``[(step, smp (m,), standard error (m,), kinks (m,))]`` for each call that can switch.

    Within a stretch of eight intervals, a unit's values and slopes are taken as jointly Gaussian. Its kinks are then
    T f(θ) E[x'² | x = θ] · |p − q| · E|gain| (`unit_rule.crossings`): f the density at the hinge θ, and the slope that
    which goes with this value, for in so short a stretch most signals run one way. A window of a max pooling is the
    maximum of its signals (`gaussian_max`). Behind a ReLU they are the ReLU's inputs, with 0 among them; where the
    leader passes 0 the kink is the ReLU's.

    Stretches are as short as the samples can carry: over eight intervals the trapezoid rule gives the variance of a
    signal that runs straight 3% too high (2/8²), over four it would be 12%. And they overlap by half, as a moving
    window: side by side they would count a single crossing of a straight signal 1.38 times in the middle of a stretch
    and 0.62 times at its ends; overlapping, between 0.997 and 1.003 times.

    Each stretch is gone along in parts, once more where there is a pooling: for every unit's moments and gains, and
    then for the windows that these tell to be worth it.
    """
    switches = {n: step for n, step in enumerate(graph) if step.switches}
    for step in switches.values():
        if step.op != "max pool":
            refuse_jumps(step.seen, step.name)
    recorder = Recorder(model, {step.call for step in switches.values()}, reference)
    found: dict[int, list[tuple[Tensor, ...]]] = {}
    parted = pieces(times)
    draws = max(_FEWEST, _PAIRS // len(parted))
    for seed, stretch in enumerate(_stretches(recorder, parted) if switches else ()):
        for n, part in _of_stretch(graph, switches, recorder, *stretch, draws, seed):
            found.setdefault(n, []).append(part)
    return [(graph[n], sum(smp), sum(part**2 for part in error).sqrt(), sum(kinks))
            for n, (smp, error, kinks) in sorted((n, zip(*parts, strict=True)) for n, parts in found.items())]


def _stretches(recorder: Recorder, parted: list[Tensor]):
    """Times, moments of each call, and how much of the path they stand for, of every two neighbouring pieces."""
    last = None
    for n, piece in enumerate(parted):
        weights, now = _weights(piece), {}
        for here, before, gains in recorder.parts(piece):
            for call, rows in before.items():
                part = Moments.of(weights[here], rows, gains[call])
                now[call] = now[call].join(part) if call in now else part
        if last is not None:
            # Half of each piece; the path's ends are in no other stretch.
            own = [float(one[-1] - one[0]) * (1 if end else 0.5)
                   for one, end in ((parted[n - 1], n == 1), (piece, n == len(parted) - 1))]
            yield torch.cat([parted[n - 1], piece[1:]]), {call: last[call].join(now[call]) for call in now}, sum(own)
        elif len(parted) == 1:
            yield piece, now, float(piece[-1] - piece[0])
        last = now


def _weights(times: Tensor) -> Tensor:
    """Of the trapezoid rule."""
    return torch.nn.functional.pad(times.diff(), (1, 1)).unfold(0, 2, 1).mean(-1)


def _of_stretch(graph: list[Step], switches: dict[int, Step], recorder: Recorder, times: Tensor,
                seen: dict[str, Moments], duration: float, draws: int, seed: int):
    """``step, (smp, error, kinks)`` of every call that can switch, in one stretch."""
    weights = _weights(times)
    pools = {n: _Pool(graph, n, seen, draws, seed) for n, step in switches.items() if step.op == "max pool"}
    rows = recorder.passes(times, {(n, source): (source, pool.channel, pool.members.clamp(min=0))
                                   for n, pool in pools.items() if len(pool.channel) for _, source, _ in pool.looks})
    for n, step in switches.items():
        if n in pools:
            mine = {source: row for (pool, source), row in rows.items() if pool == n}
            yield from pools[n].predicted(mine, weights / weights.sum(), duration)
        elif all(n != number for pool in pools.values() for number, *_ in pool.looks):
            yield n, _elementwise(step, seen[step.call], duration)


def _elementwise(step: Step, seen: Moments, duration: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rice's formula at each hinge with each unit's own moments, times its own mean |gain|: ``(m,)`` each."""
    made, number = (sum(parts) for parts in list(zip(*hinge_rates(
        step.describe(seen.means[:1]), *seen.law()), strict=True))[:2])
    smp = duration * (seen.size * made).flatten(1).sum(-1)
    return smp, torch.zeros_like(smp), duration * ((seen.size > 0) * number).flatten(1).sum(-1)


class _Pool:
    """A max pooling in one stretch: which of its windows are looked at, and what they give.

    ``looks`` are one for swaps of the lead and, with a two-slope unit before it that nothing else reads, one for the
    leader's crossings of 0, which are the unit's kinks: the step that they belong to, the call whose inputs the signals
    are, and whether zero takes part. Behind a ReLU the swaps as well are those of its inputs above 0. A unit that falls
    below 0 is never the leader there.
    """

    def __init__(self, graph: list[Step], number: int, seen: dict[str, Moments], draws: int, seed: int):
        step = graph[number]
        unit = graph[step.inputs[0]]
        self.draws, self.generator = draws, torch.Generator().manual_seed(seed)
        slopes = two_slopes(unit.seen) if unit.op == "unit" else None
        relu = slopes is not None and slopes[:2] == (1, 0)
        mean, var, slope_var, _, drift = seen[unit.call if relu else step.call].law()
        where, _ = windows(mean.shape[1:], **step.settings)
        check_size(step, where)
        where, size = where.to(mean.device), seen[step.call].size.flatten(2)
        # Windows that move, behind a ReLU above 0, and that the output notices, are drawn more often, and weighted with
        # the inverse of their chance.
        std = torch.where(var > 0, var, torch.inf).sqrt()
        speed = (slope_var + drift**2) / std * (normal_cdf(mean / std) if relu else 1)
        speed = (speed.flatten(1)[:, where.clamp(min=0)] * (where >= 0)).sum(-1)
        chance = (size.sum(0) * speed).flatten()
        picked = chance.nonzero()[:, 0]
        share = torch.ones_like(chance)
        if len(picked) > _WINDOWS:
            picked = torch.multinomial(chance.cpu(), _WINDOWS, replacement=True, generator=self.generator).to(picked)
            share = chance / chance.sum() * _WINDOWS
        self.share = 1 / share[picked]
        self.size = size.flatten(1)[:, picked] * self.share
        self.channel, self.members = picked // len(where), where[picked % len(where)]
        self.looks = [(number, unit.call if relu else step.call, relu)]
        self.step = size.new_ones(())
        if slopes is not None and sum(step.inputs[0] in each.inputs for each in graph) == 1:
            self.looks.append((step.inputs[0], unit.call, True))
            above, below = (torch.as_tensor(part).to(size).flatten().expand(len(mean))[self.channel]
                            for part in unit.seen.hinges[0][1:3][::-1])
            self.step = torch.where(below >= 0, (above - below).abs(), 0.0)

    def predicted(self, rows: dict[int, tuple[Tensor, Tensor]], weights: Tensor, duration: float):
        """``step, (smp, error, kinks)`` of each look."""
        for number, source, zero in self.looks:
            own = number != self.looks[0][0]
            smp = kinks = self.size.new_zeros(len(self.size), 1)
            found = self._drawn(rows.get(source), weights, zero, own)
            if found is not None:
                made, at, strength, ties = found
                smp = duration * made * self.size[:, at] * strength * (self.step[at] if own else 1)
                kinks = duration * made * self.share[at] * (self.size[:, at] > 0) * ties
            yield number, (smp.mean(-1), smp.std(-1, correction=0) / math.sqrt(self.draws), kinks.mean(-1))

    def _drawn(self, rows, weights: Tensor, with_0: bool, own: bool):
        """Pairs of signals drawn, those that meet most, and most strongly, most often: the chance that they lead over
        that of being drawn, the window, strength and number of ties; None where there is nothing to draw."""
        if rows is None:
            return None
        mean, drift, *covs = _moments(*rows, weights)
        leads = self.members >= 0
        if with_0:
            mean, *covs = with_zero(mean, *covs)
            drift = torch.nn.functional.pad(drift, (0, 1))
            leads = torch.nn.functional.pad(leads, (0, 1), value=True)
        i, j = torch.triu_indices(leads.shape[1], leads.shape[1], 1, device=mean.device)
        meant = (j == leads.shape[1] - 1) == own if with_0 else True
        cov, slope_cov, cross = covs
        chance = tie_rates(cov, slope_cov, mean, i, j, cross, drift)[0] * (leads[:, i] & leads[:, j] & meant)
        # A bound that is 0 by rounding still leaves a pair its chance.
        chance = chance * leads_at_most(cov, mean, i, j, leads).clamp(min=1e-3)
        chance = (chance * (self.size.sum(0) * (self.step if own else 1))[:, None]).flatten()
        if not bool((chance > 0).any()):
            return None
        chance = chance / chance.sum()
        picked = torch.multinomial(chance.cpu(), self.draws, replacement=True, generator=self.generator).to(mean.device)
        at, pair = picked // len(i), picked % len(i)
        # The pair's two signals first, then the others.
        rank = torch.arange(2, leads.shape[1] + 2, device=mean.device).repeat(len(at), 1)
        order = rank.scatter(1, torch.stack([i[pair], j[pair]], 1), rank.new_tensor([[0, 1]]).expand(len(at), 2))
        order, row = order.argsort(1), at[:, None]
        mean, leads, drift = (part[row, order] for part in (mean, leads, drift))
        cov, slope_cov, cross = (part[row[..., None], order[:, :, None], order[:, None]] for part in covs)
        found = ties(cov, slope_cov, mean, leads, cross, drift, pairs=1)
        return leads_at(found, _POINTS).mean(0)[:, 0] / chance[picked], at, found.strength[:, 0], found.number[:, 0]


def _moments(values: Tensor, slopes: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """Means of values and slopes ``(W, k)``; covariances ``(W, k, k)`` of values, of slopes, of slopes with values."""
    means = [torch.einsum("p,pwi->wi", weights, part) for part in (values, slopes)]
    x, v = values - means[0], slopes - means[1]
    return *means, *(torch.einsum("p,pwi,pwj->wij", weights, one, other) for one, other in ((x, x), (v, v), (v, x)))
