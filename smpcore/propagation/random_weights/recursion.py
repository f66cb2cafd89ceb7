"""Forward through a network's steps with second moments, and backward with squared gains."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from smpcore.propagation.closed_forms.unit_rule import two_slopes
from smpcore.propagation.layer_graph import Step
from smpcore.propagation.random_weights import linear
from smpcore.propagation.random_weights.elementwise import unit
from smpcore.propagation.random_weights.max_pool import max_pool
from smpcore.propagation.random_weights.sampling import REPLICATES, as_many, draws_for, matched, normal
from smpcore.propagation.random_weights.second_moments import Field, shifted
from smpcore.propagation.random_weights.stage import Stage

__all__ = ["STAGES", "LayerRates", "walk"]

#: One entry for each operation of `layer_graph`: a function of the step, the fields that it reads and the run.
STAGES = {
    "unit": unit,
    "max pool": max_pool,
    "linear": linear.linear,
    "conv": linear.conv,
    "batch norm": linear.batch_norm,
    "sum": linear.residual_sum,
    "pad": linear.pad,
    "average pool": linear.linear_map,
    "adaptive average pool": linear.linear_map,
    "mean": linear.linear_map,
    "upsample": linear.linear_map,
    "flatten": linear.flatten,
    "identity": linear.identity,
    "rearrange": linear.rearrange,
}

# Bytes of one moment that are worked on at once: what a cache holds, up to what a machine should spare where that is
# less than eight times; and of draws.
_ROOM, _MOST, _DRAWN = 1 << 22, 1 << 26, 1 << 25
# Positions of a map of which all pairs are carried.
_LARGEST = 2500
_HALF_NORMAL = math.sqrt(2 / math.pi)
# What passes every gain on by itself, and so its mean magnitude as well.
_ONE_FOR_ONE = {"pad", "batch norm", "identity"}
_JOINS = {"average pool", "adaptive average pool", "mean", "upsample"}


@dataclass
class LayerRates:
    """What one call adds per unit of t: SMP ``rates (R, P, m)``, and how many kinks, ``kinks (R, P, 1)``."""

    name: str
    kind: str
    rates: Tensor
    kinks: Tensor


class Run:
    """What the stages of one walk share: which step is at work, and who reads it."""

    def __init__(self, steps: list[Step]):
        self.steps, self.at, self.draws = steps, 0, 0
        # Of a sum of a Gaussian map and another: the mean squared derivative of the unit behind, over its mean, where
        # the other is not 0, and where it is.
        self.on_with_rest: dict[int, tuple[Tensor, Tensor]] = {}
        # Whether whole maps and gains are drawn.
        self.joint = _gains_meet(steps)
        self.users = [[n for n, step in enumerate(steps) if at in step.inputs] for at in range(len(steps))]

    def next_seed(self) -> int:
        self.draws += 1
        return 7919 * self.draws

    def pool_behind(self) -> bool:
        """Whether a max pooling alone reads this step."""
        users = self.users[self.at]
        return len(users) == 1 and self.steps[users[0]].op == "max pool"

    def two_slope_behind(self) -> int | None:
        """The two-slope unit that alone reads this step, if one does."""
        users = self.users[self.at]
        return users[0] if len(users) == 1 and self.two_slope(users[0]) else None

    def two_slope(self, at: int) -> bool:
        """Whether a step is a unit with two slopes, one on either side of 0."""
        return self.steps[at].op == "unit" and two_slopes(self.steps[at].seen) is not None

    def pool_before(self) -> bool:
        """Whether this unit alone reads a max pooling."""
        before = self.steps[self.at].inputs[0]
        return self.steps[before].op == "max pool" and len(self.users[before]) == 1


# What is carried of a map: nothing that counts, p = q alone, that with `Field.across`, all pairs of positions.
_NONE, _OWN, _NEAR, _ALL = range(4)


def carried(steps: list[Step]) -> list[int]:
    """How much of the moments behind each step is needed by those that switch behind it."""
    needed = [_NONE] * len(steps)
    for n in range(len(steps) - 2, -1, -1):
        for each in steps[n].inputs:
            needed[each] = max(needed[each], before(steps[n], needed[n]))
    sizes = [_positions(step) for step in steps]
    for step, level, size in zip(steps, needed, sizes, strict=True):
        if level == _ALL and size > _LARGEST:
            raise ValueError(f"behind {step.name} the moments of all pairs of {size} positions are needed: more than "
                             f"{_LARGEST} positions do not fit in memory; predict it on smaller inputs, or with "
                             "moments='measured'")
    return needed


def before(step: Step, behind: int) -> int:
    """What a step needs of its inputs, for what is needed behind it."""
    if step.op == "max pool":
        return _NEAR if behind <= _OWN else _ALL
    if step.op in _JOINS:
        return _ALL if behind else _NONE
    if step.op == "linear":
        return min(behind, _OWN)
    if step.op == "unit":
        behind = max(behind, _OWN if step.switches else _NONE)
        return behind if behind <= _OWN or two_slopes(step.seen) is not None else _ALL
    padded = step.op == "pad" and (step.settings.get("mode") or "constant") != "constant"
    return _ALL if padded and behind == _NEAR else behind


def walk(steps: list[Step], inputs: tuple[Tensor, Tensor]) -> list[LayerRates]:
    """Every call that can switch, with what it adds at each of the times; in parts, to bound the memory.

    ``inputs`` are the path's values and slopes ``(P, *input_shape)``.
    """
    needed = carried(steps)
    sizes = [_positions(step) for step in steps]
    largest = max(size**2 if level == _ALL else size for size, level in zip(sizes, needed, strict=True))
    at_once = max(1, _ROOM // (8 * largest), min(8, _MOST // (8 * largest)))
    joint = _gains_meet(steps)
    if joint or any(step.op in ("max pool", "sum") for step in steps):
        drawn = max(size * draws_for(size, joint) for size in sizes)
        at_once = min(at_once, max(1, _DRAWN // (8 * REPLICATES * drawn)))
    parts = []
    for start in range(0, len(inputs[0]), at_once):
        values, slopes = (part[start:start + at_once] for part in inputs)
        parts.append(_once(steps, needed, _first(values, slopes, needed[0] == _ALL)))
    replicates = max(part.rates.shape[0] for found in parts for part in found) if parts[0] else 1
    joined = []
    for same in zip(*parts, strict=True):
        both = (torch.cat([part.expand(replicates, *part.shape[1:]) for part in parts], 1)
                for parts in ([part.rates for part in same], [part.kinks for part in same]))
        joined.append(LayerRates(same[0].name, same[0].kind, *both))
    return joined


def _first(values: Tensor, slopes: Tensor, pairs: bool) -> Field:
    """The inputs themselves, as second moments averaged over their channels."""
    count, channels, *sides = values.shape
    flat = [part.reshape(count, channels, -1) for part in (values, slopes)]

    def across(offset):
        there = [shifted(part, tuple(sides), offset) for part in flat]
        return tuple((flat[one] * there[other]).mean(1)[None] for one, other in ((0, 0), (1, 1), (1, 0)))

    moments = across((0,) * len(sides))
    if pairs:
        moments = [(flat[one].mT @ flat[other] / channels)[None] for one, other in ((0, 0), (1, 1), (1, 0))]
    return Field(*moments, channels, tuple(sides), across=across, draw=lambda: tuple(part[None] for part in flat))


def _once(steps: list[Step], needed: list[int], first: Field) -> list[LayerRates]:
    readout = steps[steps[-1].inputs[0]]
    if readout.op != "linear":
        raise ValueError(f"the output comes from {readout.name}: a linear readout is needed, whose weights are taken "
                         "as they are")
    run = Run(steps)
    stages: list[Stage | None] = [None] * len(steps)
    fields: list[Field | None] = [None] * len(steps)
    # Of each step's output: channels, and positions of each.
    counts = [(0, 0)] * len(steps)
    for n, step in enumerate(steps[:-1]):
        if step.op == "input":
            fields[n] = first
        else:
            run.at = n
            level = before(step, needed[n])
            given = [fields[each] if level == _ALL else fields[each].own() for each in step.inputs]
            stages[n] = STAGES[step.op](step, given, run)
            fields[n], stages[n] = stages[n].field, replace(stages[n], field=None)
            if run.joint:
                fields[n].draw()
            for each in step.inputs:
                if run.users[each][-1] == n:
                    fields[each] = None
        counts[n] = fields[n].channels, fields[n].positions
    return _gathered(steps, stages, counts, _backward(steps, stages, counts, first, run), readout)


def _backward(steps, stages, counts, first: Field, run: Run) -> list:
    """Of each step's output for a readout of unit variance: the mean magnitude of gains, over √(2/π), at the kinks of a
    unit before it and elsewhere, and whether the readout's own weights stand directly behind.

    Gains are mean squares ``(R, P, N)``, or draws ``(R, P, M, N)`` where those of different positions meet.
    """
    gains: list = [None] * len(steps)
    sizes: list = [None] * len(steps)
    end = steps[-1].inputs[0]
    before = steps[end].inputs[0]
    positions = counts[before][1]
    one = first.value.new_ones(1, first.value.shape[1], positions)
    if run.joint:
        white = normal(1.0, (REPLICATES, 1, draws_for(positions, True), positions), run.next_seed(), one)
        one = matched(white, one)
    gains[before] = (one, True, None)
    for n in range(end - 1, 0, -1):
        if gains[n] is None or stages[n] is None:
            continue
        gain, direct, kink = gains[n]
        gains[n] = None
        sizes[n] = (_size(gain if kink is None else kink, stages[n].at_kink), _size(gain), direct)
        direct = direct and steps[n].op not in ("linear", "conv")
        for at, part in zip(steps[n].inputs, stages[n].pull(gain), strict=True):
            part, at_kink = part if isinstance(part, tuple) else (part, None)
            if kink is not None and steps[n].op in _ONE_FOR_ONE:
                (at_kink,) = stages[n].pull(kink)
            if gains[at] is not None:
                # Gains of two branches: a sum of many weights' products, near enough to Gaussian.
                other, _, other_kink = gains[at]
                if at_kink is not None or other_kink is not None:
                    at_kink = (part if at_kink is None else at_kink) + (other if other_kink is None else other_kink)
                part, direct = part + as_many(other, part.shape[2]) if run.joint else part + other, False
            gains[at] = (part, direct, at_kink)
    return sizes


def _size(gain: Tensor, these: Tensor | None = None) -> Tensor:
    if gain.dim() == 3:
        return gain.clamp(min=0).sqrt()
    share = torch.ones_like(gain) if these is None else as_many(these.to(gain), gain.shape[2])
    return (gain.abs() * share).sum(2) / share.sum(2).clamp(min=1) / _HALF_NORMAL


def _positions(step: Step) -> int:
    return torch.Size(step.shape[1:]).numel()


def _gains_meet(steps: list[Step]) -> bool:
    """Whether one position reaches several behind some step, by the same weights, so that gains of different positions
    meet there."""
    def overlaps(step):
        if step.op == "average pool":
            kernel, stride = step.settings.get("kernel_size"), step.settings.get("stride")
            return stride is not None and kernel != stride
        if step.op == "adaptive average pool":
            return any(before % behind for before, behind in zip(steps[step.inputs[0]].shape[1:], step.shape[1:],
                                                                 strict=True))
        return step.op == "upsample" or linear.is_depthwise(step)

    return any(map(overlaps, steps))


def _gathered(steps, stages, counts, sizes, readout: Step) -> list[LayerRates]:
    weight = readout.settings["weight"].double()
    size, mean = (weight**2).mean(1).sqrt(), weight.abs().mean(1)
    found = {}
    times = next(each for each in sizes if each is not None)[0].shape[1]
    zero = weight.new_zeros(1, times, len(weight))
    for n, step in enumerate(steps):
        if step.switches:
            found[n] = LayerRates(step.name, step.kind, zero, zero[..., :1])
    for made in stages:
        for target, at, rate in made.rates if made else ():
            if sizes[at] is None:
                continue
            at_kink, everywhere, direct = sizes[at]
            gain = at_kink if steps[at].op == "unit" else everywhere
            sums = (rate[0] * gain).sum(-1) * counts[at][0]
            # Behind wide layers some path to the output is open at every unit, so that each of its kinks is seen.
            found[target].kinks = found[target].kinks + (rate[1] * (gain > 0)).sum(-1, keepdim=True) * counts[at][0]
            found[target].rates = found[target].rates + sums[..., None] * (mean if direct else _HALF_NORMAL * size)
    return list(found.values())
