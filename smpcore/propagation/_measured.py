"""A trained network predicted from what each of its units does along another path of the same family.

The model runs along the reference path only: there each unit's mean, variance, slope variance and gain are taken,
and where a max pooling stands the covariances of its windows. On the path that is predicted nothing runs; what is
left between the two is the Gaussian law.
"""

import copy
import math

import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad

from smpcore.propagation._graph import Step, steps
from smpcore.propagation._max_pooling import windows
from smpcore.propagation._windows import _swaps
from smpcore.propagation.rules import two_slope_smp

__all__ = ["predict_from_reference"]

# Windows of a pooling that are integrated, drawn at random from all, and Sobol points in each of eight scrambles.
_WINDOWS, _POINTS = 300, 32
_SWITCHES = ("relu", "leaky relu", "prelu", "hardtanh", "max pool")


def predict_from_reference(model: nn.Module, reference, times: Tensor) -> list[tuple]:
    """``[(step, smp (m,), standard error (m,), how)]`` for each call that can switch.

    A unit's kinks: T λ/(σ√(2π)) exp(−μ²/2σ²) · |p − q| · E|gain|, with moments over the reference path. A window of
    a max pooling is the maximum of its signals (`rules.max_pool_smp`). Behind a ReLU they are the ReLU's inputs, with
    0 among them; where the leader passes 0 the kink is the ReLU's.
    """
    graph = steps(model)
    calls, outputs = _recorded(model, graph, reference, times)
    duration = float(times[-1] - times[0])
    found = {}
    for number, step in enumerate(graph):
        if step.op not in _SWITCHES:
            continue
        before, after = calls[step.node]
        gains = [torch.autograd.grad(outputs[:, m].sum(), after, retain_graph=True, allow_unused=True)[0]
                 for m in range(outputs.shape[1])]
        size = torch.stack([torch.zeros_like(after) if gain is None else gain for gain in gains]).abs().mean(1)
        with torch.no_grad():
            if step.op != "max pool":
                found[number] = _elementwise(step, before, size, duration)
                continue
            relu = step.inputs[0] if graph[step.inputs[0]].op == "relu" else None
            before = before if relu is None else calls[graph[relu].node][0]
            swaps, crossings = _pool(step, before, size, duration, relu is not None)
            found[number] = swaps
            if relu is not None and sum(relu in each.inputs for each in graph) == 1:
                found[relu] = crossings
    return [(graph[number], *parts) for number, parts in sorted(found.items())]


def _recorded(model: nn.Module, graph: list[Step], reference, times: Tensor):
    """What enters (value, slope) and leaves each unit that can switch, and the outputs (P, m) attached to it."""
    plain = copy.deepcopy(model).double().requires_grad_(False)
    runner = _Interpreter(fx.GraphModule(plain, fx.Tracer().trace(plain)),
                          {step.node for step in graph if step.op in _SWITCHES})
    values, slopes = torch.func.jvp(reference, (times,), (torch.ones_like(times),))
    with forward_ad.dual_level(), torch.enable_grad():
        result = runner.run(forward_ad.make_dual(values.double().requires_grad_(), slopes.double()))
        return runner.calls, forward_ad.unpack_dual(result).primal.flatten(1)


class _Interpreter(fx.Interpreter):
    """Runs a traced model and keeps what passes the named calls."""

    def __init__(self, module: fx.GraphModule, names: set[str]):
        super().__init__(module)
        self.names, self.calls = names, {}

    def run_node(self, n):
        if n.name not in self.names:
            return super().run_node(n)
        given = self.fetch_args_kwargs_from_env(n)[0][0]
        before = tuple(part.detach().clone() for part in forward_ad.unpack_dual(given))
        primal, tangent = forward_ad.unpack_dual(super().run_node(n))
        kept = primal.clone()
        self.calls[n.name] = (before, kept)
        return forward_ad.make_dual(kept.view_as(kept), tangent)


def _elementwise(step: Step, before, gains: Tensor, duration: float) -> tuple:
    """Rice's formula with each unit's own moments, times its own mean |gain|: ``(m,)``."""
    values, slopes = (part.flatten(1) for part in before)
    size = gains.flatten(1)
    mean, var, slope_var = values.mean(0), values.var(0), (slopes**2).mean(0)
    moves = (var > 1e-20) & (slope_var > 1e-20)
    result = torch.zeros_like(mean)
    if step.op == "hardtanh":
        shifts, jump = [float(step.settings[name]) for name in ("min_val", "max_val")], torch.ones_like(mean)
    else:
        shifts, jump = [0.0], _jumps(step, before[0].shape).to(mean)
    for shift in shifts:
        result[moves] += two_slope_smp(mean[moves] - shift, var[moves], slope_var[moves], duration)
    smp = (size * jump * result).sum(-1)
    return smp, torch.zeros_like(smp), "closed form"


def _jumps(step: Step, shape) -> Tensor:
    """|1 − q| of every unit."""
    below = torch.zeros(1, dtype=torch.float64)
    if step.op == "leaky relu":
        below = below + float(step.settings.get("negative_slope", 0.01))
    elif step.op == "prelu":
        below = step.module.weight.detach().double().reshape(-1, *[1] * (len(shape) - 2))
    return (1 - below).abs().expand(shape[1:]).flatten()


def _pool(step: Step, before, gains: Tensor, duration: float, behind_relu: bool) -> tuple:
    """Swaps of the lead in windows drawn at random, and where the leader passes 0; each (smp, error, how)."""
    values, slopes = (part.flatten(2) for part in before)
    where, _ = windows(step.settings, tuple(before[0].shape[2:]))
    size = gains.flatten(2)
    # Windows that the output notices most are drawn most often, and weighted with the inverse of their chance.
    chance = size.sum(0).flatten()
    if float(chance.sum()) == 0:
        nothing = (gains.new_zeros(len(gains)), gains.new_zeros(len(gains)), "closed form")
        return nothing, nothing
    chance = chance / chance.sum()
    generator = torch.Generator().manual_seed(0)
    picked = torch.multinomial(chance.cpu(), min(_WINDOWS, 2 * len(chance)), replacement=True, generator=generator)
    channel, window = picked // size.shape[2], picked % size.shape[2]
    members = where[window]
    rows = [part[:, channel[:, None], members.clamp(min=0)] for part in (values, slopes)]
    mean, cov, slope_cov = _moments(*rows, members < 0)
    weight = duration * size[:, channel, window] / chance[picked.to(chance.device)]
    if not behind_relu:
        return _weighted(_maximum(mean, cov, slope_cov), weight), None
    mean, cov, slope_cov = _with_zero(mean, cov, slope_cov)
    # Each signal's own slope variance, and none between two signals: only crossings of 0 are left.
    own = torch.diagonal(slope_cov, dim1=-2, dim2=-1)
    alike = (own[:, :, None] + own[:, None, :]) / 2
    alike[:, -1, :] = alike[:, :, -1] = 0
    crossings = _maximum(mean, cov, alike)
    swaps = (_maximum(mean, cov, slope_cov) - crossings).clamp(min=0)
    return _weighted(swaps, weight), _weighted(crossings, weight)


def _weighted(rate: Tensor, weight: Tensor) -> tuple:
    each = rate * weight
    return each.mean(-1), each.std(-1) / math.sqrt(each.shape[-1]), "simulated"


def _with_zero(mean: Tensor, *covariances: Tensor) -> list[Tensor]:
    return [nn.functional.pad(mean, (0, 1)), *(nn.functional.pad(cov, (0, 1, 0, 1)) for cov in covariances)]


def _moments(values: Tensor, slopes: Tensor, missing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Means and covariances ``(W, k[, k])`` over time; what lies beyond the border stays far below all others."""
    mean = values.mean(0)
    centred = values - mean
    there = (~missing[:, :, None] & ~missing[:, None, :]).to(mean)
    cov, slope_cov = (torch.einsum("pwi,pwj->wij", part, part) / len(part) * there for part in (centred, slopes))
    far = mean.amin(-1, keepdim=True) - 40 * torch.diagonal(cov, dim1=-2, dim2=-1).amax(-1, keepdim=True).sqrt() - 1
    return torch.where(missing.to(mean.device), far, mean), cov, slope_cov


def _maximum(mean: Tensor, cov: Tensor, slope_cov: Tensor) -> Tensor:
    """New kinks of each window per unit of t (`rules.max_pool_smp`, on few points)."""
    unit = torch.diagonal(cov, dim1=-2, dim2=-1).amax(-1).sqrt()
    moves = unit > 1e-10
    unit = torch.where(moves, unit, 1.0)
    scale = unit[:, None, None]**2
    leads = torch.ones_like(mean, dtype=torch.bool)
    rate = _swaps(cov / scale, slope_cov / scale, mean / unit[:, None], leads, _POINTS).mean(0)
    return torch.where(moves, rate * unit, 0.0)
