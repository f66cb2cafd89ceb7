"""Forward through a network's steps with second moments, and backward with squared gains."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from smpcore.propagation.closed_forms.unit_rule import two_slopes
from smpcore.propagation.layer_graph import Step
from smpcore.propagation.random_weights import linear
from smpcore.propagation.random_weights.elementwise import unit
from smpcore.propagation.random_weights.max_pool import max_pool
from smpcore.propagation.random_weights.second_moments import Field, diagonal
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
    "average pool": linear.linear_map,
    "adaptive average pool": linear.linear_map,
    "mean": linear.linear_map,
    "upsample": linear.linear_map,
    "flatten": linear.flatten,
    "identity": linear.identity,
    "rearrange": linear.rearrange,
}

# Bytes of one moment that are worked on at once: what a cache holds, up to what a machine should spare where that is
# less than eight times.
_ROOM, _MOST = 1 << 22, 1 << 26
_HALF_NORMAL = math.sqrt(2 / math.pi)
_SPATIAL = {"average pool", "adaptive average pool", "mean", "upsample", "max pool"}
_JOINS = _SPATIAL - {"max pool"}


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


def walk(steps: list[Step], inputs: tuple[Tensor, Tensor]) -> list[LayerRates]:
    """Every call that can switch, with what it adds at each of the times; in parts, to bound the memory.

    ``inputs`` are the path's values and slopes ``(P, *input_shape)``.
    """
    largest = 1
    pairs = any(step.op in _SPATIAL for step in steps)
    if pairs and inputs[0].dim() > 2:
        largest = inputs[0][0, 0].numel() ** 2
    at_once = max(1, _ROOM // (8 * largest), min(8, _MOST // (8 * largest)))
    parts = []
    for start in range(0, len(inputs[0]), at_once):
        values, slopes = (part[start:start + at_once] for part in inputs)
        parts.append(_once(steps, _first(values, slopes, pairs)))
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
    if pairs:
        moments = [a.mT @ b / channels for a, b in ((flat[0], flat[0]), (flat[1], flat[1]), (flat[1], flat[0]))]
    else:
        moments = [(a * b).mean(1) for a, b in ((flat[0], flat[0]), (flat[1], flat[1]), (flat[1], flat[0]))]
    return Field(*(moment[None] for moment in moments), channels, tuple(sides))


def _once(steps: list[Step], first: Field) -> list[LayerRates]:
    readout = steps[steps[-1].inputs[0]]
    if readout.op != "linear":
        raise ValueError(f"the output comes from {readout.name}: a linear readout is needed, whose weights are taken "
                         "as they are")
    run = Run(steps)
    stages: list[Stage | None] = [None] * len(steps)
    fields: list[Field | None] = [None] * len(steps)
    for n, step in enumerate(steps):
        if step.op == "input":
            fields[n] = first
        elif step.op != "output":
            run.at = n
            stages[n] = STAGES[step.op](step, [fields[each] for each in step.inputs], run)
            fields[n] = stages[n].field
    gains = _backward(steps, stages, fields)
    return _gathered(steps, stages, fields, gains, readout.module.weight.detach().double())


def _backward(steps, stages, fields) -> list:
    """Mean squared gain of each step's output for a readout of unit variance, and whether the readout's own weights
    stand directly behind."""
    gains: list = [None] * len(steps)
    end = steps[-1].inputs[0]
    before = steps[end].inputs[0]
    joined = any(step.op in _JOINS and _overlaps(step) for step in steps)
    shape = fields[before].positions
    one = torch.ones(1, fields[before].value.shape[1], shape, dtype=torch.float64, device=fields[before].value.device)
    gains[before] = (torch.diag_embed(one) if joined else one, True)
    for n in range(end - 1, 0, -1):
        if gains[n] is None or stages[n] is None:
            continue
        gain, direct = gains[n]
        direct = direct and steps[n].op not in ("linear", "conv")
        for at, part in zip(steps[n].inputs, stages[n].pull(gain), strict=True):
            if gains[at] is None:
                gains[at] = (part, direct)
            else:
                # Gains of two branches: a sum of many weights' products, near enough to Gaussian.
                gains[at] = (gains[at][0] + part, False)
    return gains


def _overlaps(step: Step) -> bool:
    """Whether one position reaches several behind this step, so that gains of different positions meet."""
    if step.op == "average pool":
        kernel, stride = step.settings.get("kernel_size"), step.settings.get("stride")
        return stride is not None and kernel != stride
    return step.op in ("upsample", "adaptive average pool")


def _gathered(steps, stages, fields, gains, weight: Tensor) -> list[LayerRates]:
    size, mean = (weight**2).mean(1).sqrt(), weight.abs().mean(1)
    found = {}
    zero = weight.new_zeros(1, fields[0].value.shape[1], len(weight))
    for n, step in enumerate(steps):
        if step.switches:
            found[n] = LayerRates(step.name, step.kind, zero, zero[..., :1])
    for made in stages:
        for target, at, rate in made.rates if made else ():
            if gains[at] is None:
                continue
            gain, direct = gains[at]
            size_here = diagonal(gain).clamp(min=0).sqrt()
            sums = (rate[0] * size_here).sum(-1) * fields[at].channels
            # Behind wide layers some path to the output is open at every unit, so that each of its kinks is seen.
            found[target].kinks = found[target].kinks + (
                rate[1] * (size_here > 0)).sum(-1, keepdim=True) * fields[at].channels
            found[target].rates = found[target].rates + sums[..., None] * (mean if direct else _HALF_NORMAL * size)
    return list(found.values())
