"""A trained network predicted from what each of its units does along another path of the same family.

The model runs along the reference path only: there each unit's mean, variance, slope variance and gain are taken,
and where a max pooling stands the covariances of its windows. On the path that is predicted nothing runs; what is
left between the two is the Gaussian law.
"""

import copy

import torch
from torch import Tensor, fx, nn
from torch.autograd import forward_ad

from smpcore.propagation.closed_forms.block_rules import two_slope_smp
from smpcore.propagation.closed_forms.gaussian_max import _swaps
from smpcore.propagation.layer_graph import Step, steps
from smpcore.propagation.path_nodes import inputs
from smpcore.propagation.random_weights.max_pool import check_size, windows

__all__ = ["Moments", "Recorder", "predict_from_reference"]

# Numbers kept for the calls of one part: 64 MB.
_NUMBERS = 1 << 23


class Moments:
    """Mean, variance and mean square of slopes of each unit, and its mean |gain|, added up over parts."""

    def __init__(self):
        self.count, self.mean, self.squares, self.slopes, self.gains = 0, 0.0, 0.0, 0.0, 0.0

    def add(self, before: tuple[Tensor, Tensor], gains: Tensor) -> None:
        """``before`` values and slopes ``(P, …)``, ``gains`` ``(m, P, …)``."""
        values, slopes = before
        count, mean = len(values), values.mean(0)
        squares, shift, total = ((values - mean) ** 2).sum(0), mean - self.mean, self.count + count
        # Means of parts joined (T. Chan, G. Golub, R. LeVeque, 1979): no large numbers are taken from one another.
        self.squares = self.squares + squares + shift**2 * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.slopes = self.slopes + (slopes**2).sum(0)
        self.gains = self.gains + gains.abs().sum(1)
        self.count = total

    @property
    def var(self) -> Tensor:
        return self.squares / (self.count - 1)

    @property
    def slope_var(self) -> Tensor:
        return self.slopes / self.count

    @property
    def size(self) -> Tensor:
        """``(m, …)``: mean |gain|."""
        return self.gains / self.count


class Recorder:
    """Runs a traced model along a path, part by part, and tells what passes the named calls."""

    def __init__(self, model: nn.Module, graph: list[Step], names: set[str], path, times: Tensor):
        plain = copy.deepcopy(model).double().requires_grad_(False)
        self.runner = _Interpreter(fx.GraphModule(plain, fx.Tracer().trace(plain)), names)
        self.path, self.times = path, times

    def parts(self, gains: bool = True):
        """``calls, gains`` of each part: {call: (values, slopes)} that enter, {call: ``(m, P, …)``} of its output."""
        start, size = 0, 1
        while start < len(self.times):
            values, slopes = inputs(self.path, self.times[start:start + size], "reference")
            with forward_ad.dual_level(), torch.enable_grad():
                try:
                    found = self.runner.run(forward_ad.make_dual(values.requires_grad_(gains), slopes))
                except RuntimeError as error:
                    if "forward AD" in str(error):
                        raise
                    raise ValueError(f"the reference's inputs of shape {tuple(values.shape[1:])} do not fit the model: "
                                     f"{str(error).splitlines()[0]}") from error
                outputs = forward_ad.unpack_dual(found).primal.flatten(1)
            calls = {name: before for name, (before, _) in self.runner.calls.items()}
            yield calls, self._gains(outputs) if gains else {}
            kept = sum(after[0].numel() for _, after in self.runner.calls.values()) * (3 + outputs.shape[1])
            start, size = start + size, max(1, _NUMBERS // max(1, kept))

    def passes(self, chosen: dict[int, tuple[str, Tensor, Tensor]]) -> dict[int, tuple[Tensor, Tensor]]:
        """Values and slopes ``(P, W, k)`` of windows, along the whole path.

        ``chosen`` has the call whose input they are of, the channel ``(W,)`` and the positions ``(W, k)``.
        """
        found = {number: ([], []) for number in chosen}
        for calls, _ in self.parts(gains=False) if chosen else ():
            for number, (name, channel, members) in chosen.items():
                for rows, part in zip(found[number], calls[name], strict=True):
                    rows.append(part.flatten(2)[:, channel[:, None], members])
        return {number: tuple(torch.cat(rows) for rows in both) for number, both in found.items()}

    def _gains(self, outputs: Tensor) -> dict[str, Tensor]:
        names, kept = zip(*((name, after) for name, (_, after) in self.runner.calls.items()), strict=True)
        rows = [torch.autograd.grad(outputs[:, m].sum(), kept, retain_graph=m + 1 < outputs.shape[1], allow_unused=True)
                for m in range(outputs.shape[1])]
        return {name: torch.stack([torch.zeros_like(kept[n]) if row[n] is None else row[n] for row in rows])
                for n, name in enumerate(names)}


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


# Windows of a pooling that are integrated, drawn at random from all, and Sobol points in each of eight scrambles.
_WINDOWS, _POINTS = 300, 32
_SWITCHES = ("relu", "leaky relu", "prelu", "hardtanh", "max pool")


def predict_from_reference(model: nn.Module, reference, times: Tensor) -> list[tuple]:
    """``[(step, smp (m,), standard error (m,))]`` for each call that can switch.

    A unit's kinks: T λ/(σ√(2π)) exp(−μ²/2σ²) · |p − q| · E|gain|, with moments over the reference path. A window of
    a max pooling is the maximum of its signals (`rules.max_pool_smp`). Behind a ReLU they are the ReLU's inputs, with
    0 among them; where the leader passes 0 the kink is the ReLU's.

    The path is gone along in parts, twice where there is a pooling: for every unit's moments and gains, and then for
    the windows that these tell to be worth it.
    """
    graph = steps(model)
    switches = {n: step for n, step in enumerate(graph) if step.op in _SWITCHES}
    if not switches:
        return []
    recorder = Recorder(model, graph, {step.node for step in switches.values()}, reference, times)
    seen = {step.node: Moments() for step in switches.values()}
    for calls, gains in recorder.parts():
        for name, moments in seen.items():
            moments.add(calls[name], gains[name])
    duration = float(times[-1] - times[0])
    found = {n: _elementwise(step, seen[step.node], duration) for n, step in switches.items() if step.op != "max pool"}
    pools = {n: _Pool(graph, n, seen) for n, step in switches.items() if step.op == "max pool"}
    rows = recorder.passes({n: (pool.source, pool.channel, pool.members.clamp(min=0))
                            for n, pool in pools.items() if pool.live})
    for n, pool in pools.items():
        found |= pool.predicted(rows.get(n), duration)
    return [(graph[number], *parts) for number, parts in sorted(found.items())]


def _elementwise(step: Step, seen: Moments, duration: float) -> tuple[Tensor, Tensor]:
    """Rice's formula with each unit's own moments, times its own mean |gain|: ``(m,)``."""
    mean, var, slope_var = (part.flatten() for part in (seen.mean, seen.var, seen.slope_var))
    moves = (var > 1e-20) & (slope_var > 1e-20)
    result = torch.zeros_like(mean)
    if step.op == "hardtanh":
        shifts, jump = [float(step.settings[name]) for name in ("min_val", "max_val")], torch.ones_like(mean)
    else:
        shifts, jump = [0.0], _jumps(step, (1, *seen.mean.shape)).to(mean)
    for shift in shifts:
        result[moves] += two_slope_smp(mean[moves] - shift, var[moves], slope_var[moves], duration)
    smp = (seen.size.flatten(1) * jump * result).sum(-1)
    return smp, torch.zeros_like(smp)


def _jumps(step: Step, shape) -> Tensor:
    """|1 − q| of every unit."""
    below = torch.zeros(1, dtype=torch.float64)
    if step.op == "leaky relu":
        below = below + float(step.settings.get("negative_slope", 0.01))
    elif step.op == "prelu":
        below = step.module.weight.detach().double().reshape(-1, *[1] * (len(shape) - 2))
    return (1 - below).abs().expand(shape[1:]).flatten()


class _Pool:
    """A max pooling: which of its windows are integrated, and what they give."""

    def __init__(self, graph: list[Step], number: int, seen: dict[str, Moments]):
        step = graph[number]
        before = step.inputs[0]
        self.number, self.relu = number, before if graph[before].op == "relu" else None
        self.alone = self.relu is not None and sum(self.relu in each.inputs for each in graph) == 1
        self.source = graph[before].node if self.relu is not None else step.node
        where, _ = windows(step.settings, tuple(seen[step.node].mean.shape[1:]))
        check_size(step, where)
        self.size = seen[step.node].size.flatten(2)
        # Windows that the output notices most are drawn most often, and weighted with the inverse of their chance.
        chance = self.size.sum(0).flatten()
        self.live = float(chance.sum()) > 0
        if not self.live:
            return
        self.chance = chance / chance.sum()
        generator = torch.Generator().manual_seed(0)
        count = min(_WINDOWS, 2 * len(chance))
        picked = torch.multinomial(self.chance.cpu(), count, replacement=True, generator=generator)
        self.picked = picked.to(chance.device)
        self.channel, self.window = self.picked // self.size.shape[2], self.picked % self.size.shape[2]
        self.members = where.to(chance.device)[self.window]

    def predicted(self, rows: tuple[Tensor, Tensor] | None, duration: float) -> dict[int, tuple[Tensor, Tensor]]:
        """Swaps of the lead, and for a ReLU before it where the leader passes 0: ``{step: (smp, error)}``."""
        if rows is None:
            zero = self.size.new_zeros(len(self.size))
            return dict.fromkeys([self.number, *([self.relu] if self.alone else [])], (zero, zero))
        mean, cov, slope_cov = _moments(*rows, self.members < 0)
        weight = duration * self.size[:, self.channel, self.window] / self.chance[self.picked]
        if self.relu is None:
            return {self.number: _weighted(_maximum(mean, cov, slope_cov), weight)}
        mean, cov, slope_cov = _with_zero(mean, cov, slope_cov)
        # Each signal's own slope variance, and none between two signals: only crossings of 0 are left.
        own = torch.diagonal(slope_cov, dim1=-2, dim2=-1)
        alike = (own[:, :, None] + own[:, None, :]) / 2
        alike[:, -1, :] = alike[:, :, -1] = 0
        crossings = _maximum(mean, cov, alike)
        swaps = (_maximum(mean, cov, slope_cov) - crossings).clamp(min=0)
        found = {self.number: _weighted(swaps, weight)}
        return found | ({self.relu: _weighted(crossings, weight)} if self.alone else {})


def _weighted(rate: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over windows of rates ``(S, W)`` times weights ``(m, W)``, and its error: of the draw of windows, and of
    the integration, which its scrambles tell."""
    each = rate[:, None] * weight
    error = each.mean(0).var(-1) / each.shape[-1]
    if len(each) > 1:
        error = error + each.mean(-1).var(0) / len(each)
    return each.mean((0, -1)), error.sqrt()


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
    """New kinks of each window per unit of t ``(S, W)``, by scramble (`rules.max_pool_smp`, on few points)."""
    unit = torch.diagonal(cov, dim1=-2, dim2=-1).amax(-1).sqrt()
    moves = unit > 1e-10
    unit = torch.where(moves, unit, 1.0)
    scale = unit[:, None, None]**2
    leads = torch.ones_like(mean, dtype=torch.bool)
    rate = _swaps(cov / scale, slope_cov / scale, mean / unit[:, None], leads, _POINTS)
    return torch.where(moves, rate * unit, 0.0)
